// Which of the builds this processor can run.
#pragma once

#include <string>
#include <vector>

#include "kernels.h"

namespace avatar3d {

// Fastest first; "plain" is always there.
std::vector<const Kernels*> available_kernels();

}  // namespace avatar3d
