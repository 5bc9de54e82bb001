// One step of AdamW (Loshchilov and Hutter, "Decoupled Weight Decay Regularization"), with the
// order of operations of torch.optim.AdamW.
#pragma once

#include "common.h"

namespace avatar3d {

// What every number of a tensor shares in one step t.
struct AdamWStep {
  float keep;          // 1 - learning rate * weight decay
  float beta2;         //
  float gain1, gain2;  // 1 - beta1, 1 - beta2
  float rate;          // learning rate / (1 - beta1^t)
  float inverse_root;  // 1 / sqrt(1 - beta2^t)
  float eps;
};

template <class F>
A3D_HD void adamw(const AdamWStep& s, F gradient, F& parameter, F& exp_avg, F& exp_avg_sq) {
  exp_avg = exp_avg + F(s.gain1) * (gradient - exp_avg);
  exp_avg_sq = F(s.beta2) * exp_avg_sq + F(s.gain2) * (gradient * gradient);
  const F denominator = sqrt_of(exp_avg_sq) * F(s.inverse_root) + F(s.eps);
  parameter = F(s.keep) * parameter - F(s.rate) * exp_avg / denominator;
}

}  // namespace avatar3d
