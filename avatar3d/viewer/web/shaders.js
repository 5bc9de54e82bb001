/**
 * Classic EWA splatting (Zwicker et al. 2001; Kerbl et al. 2023) with the rules of
 * avatar3d.kernels.rasterize: 0.3 px low-pass, alpha = min(0.999, opacity exp(-sigma)), nothing
 * under 1/255. Image coordinates run right and down, the first pixel centre is (0.5, 0.5).
 */

const TEXTURE_WIDTH = 2048;
/** Texels per Gaussian in `u_fixed`: quat | scale, opacity | color | corners | basis steps. */
const FIXED_TEXELS = 5;
const MAX_BASIS = 64;

const SPLAT_VERTEX_SHADER = `#version 300 es
precision highp float;
precision highp int;
precision highp sampler2D;
precision highp isampler2D;

uniform highp usampler2D u_order; // from far to near
uniform sampler2D u_fixed;
uniform sampler2D u_means;
uniform sampler2D u_vertices;
uniform isampler2D u_basis;
uniform int u_basis_count;
uniform int u_basis_texels; // per attribute: ceil(K / 4)
uniform vec4 u_basis_weights[${MAX_BASIS / 4}];
uniform mat4 u_head; // to the view, as T_camera_head
uniform mat4 u_torso;
uniform vec4 u_camera; // fx, fy, cx, cy in pixels
uniform vec2 u_size; // pixels

flat out vec2 v_center;
flat out vec3 v_conic;
flat out vec4 v_color; // straight color, opacity

const int WIDTH = ${TEXTURE_WIDTH};
const float NEAR = 0.01;
const vec4 OUTSIDE = vec4(0.0, 0.0, 2.0, 1.0);

ivec2 place(int texel) { return ivec2(texel % WIDTH, texel / WIDTH); }

vec3 vertex(float index) { return texelFetch(u_vertices, place(int(index)), 0).xyz; }

mat3 rotation(vec4 q) {
  q /= max(length(q), 1e-12);
  float w = q.x, x = q.y, y = q.z, z = q.w;
  return mat3(
    1.0 - 2.0 * (y * y + z * z), 2.0 * (x * y + w * z), 2.0 * (x * z - w * y),
    2.0 * (x * y - w * z), 1.0 - 2.0 * (x * x + z * z), 2.0 * (y * z + w * x),
    2.0 * (x * z + w * y), 2.0 * (y * z - w * x), 1.0 - 2.0 * (x * x + y * y));
}

/** Columns: first edge, normal x first edge, normal. */
mat3 triangle_frame(vec3 corners) {
  vec3 a = vertex(corners.x);
  vec3 u = vertex(corners.y) - a;
  u /= max(length(u), 1e-12);
  vec3 n = cross(u, vertex(corners.z) - a);
  n /= max(length(n), 1e-12);
  return mat3(u, cross(n, u), n);
}

/** Displacement of attribute \`row\` (0..6: quat, color) of Gaussian \`index\`, in its steps. */
float shift(int index, int row) {
  float sum = 0.0;
  int start = (7 * index + row) * u_basis_texels;
  for (int k = 0; k < u_basis_texels; k++) {
    sum += dot(vec4(texelFetch(u_basis, place(start + k), 0)), u_basis_weights[k]);
  }
  return sum;
}

/** Four vertices per Gaussian, the corners of [-1, 1]^2. */
void main() {
  vec2 corner = vec2(ivec2(gl_VertexID & 1, (gl_VertexID >> 1) & 1) * 2 - 1);
  int index = int(texelFetch(u_order, place(gl_VertexID >> 2), 0).r);
  vec4 quat = texelFetch(u_fixed, place(${FIXED_TEXELS} * index), 0);
  vec4 scale_opacity = texelFetch(u_fixed, place(${FIXED_TEXELS} * index + 1), 0);
  vec3 color = texelFetch(u_fixed, place(${FIXED_TEXELS} * index + 2), 0).rgb;
  vec3 corners = texelFetch(u_fixed, place(${FIXED_TEXELS} * index + 3), 0).xyz;
  if (index < u_basis_count) {
    vec2 step = texelFetch(u_fixed, place(${FIXED_TEXELS} * index + 4), 0).xy;
    quat += step.x * vec4(shift(index, 0), shift(index, 1), shift(index, 2), shift(index, 3));
    color += step.y * vec3(shift(index, 4), shift(index, 5), shift(index, 6));
  }

  vec4 mean = texelFetch(u_means, place(index), 0);
  vec4 point = vec4(mean.xyz, 1.0);
  vec3 center = mix((u_head * point).xyz, (u_torso * point).xyz, mean.w);
  float opacity = scale_opacity.w;
  if (center.z < NEAR || opacity < 1.0 / 255.0) {
    gl_Position = OUTSIDE;
    return;
  }

  mat3 axes = rotation(quat);
  if (corners.x >= 0.0) axes = triangle_frame(corners) * axes;
  axes = (mean.w < 0.5 ? mat3(u_head) : mat3(u_torso)) * axes;
  mat3 spread = mat3(
    axes[0] * scale_opacity.x, axes[1] * scale_opacity.y, axes[2] * scale_opacity.z);

  // Affine approximation of the projection at the centre, which must not leave the view far.
  vec2 focal = u_camera.xy, principal = u_camera.zw;
  vec2 margin = 0.15 * u_size / focal;
  vec2 slope = clamp(center.xy / center.z, -principal / focal - margin,
                     (u_size - principal) / focal + margin);
  vec3 row_x = vec3(focal.x, 0.0, -focal.x * slope.x) / center.z;
  vec3 row_y = vec3(0.0, focal.y, -focal.y * slope.y) / center.z;
  vec3 px = row_x * spread, py = row_y * spread;
  float xx = dot(px, px) + 0.3, xy = dot(px, py), yy = dot(py, py) + 0.3;
  // Cauchy-Binet: needles do not cancel as they would in xx * yy - xy * xy.
  vec3 area = cross(px, py);
  float determinant = dot(area, area) + 0.3 * (dot(px, px) + dot(py, py)) + 0.09;

  // The quad spans the ellipse on which alpha falls to 1/255.
  float extent = sqrt(2.0 * log(255.0 * opacity));
  float middle = 0.5 * (xx + yy);
  float radius = length(vec2(0.5 * (xx - yy), xy));
  float major = middle + radius, minor = determinant / major;
  vec2 axis = abs(xy) > 1e-6 ? normalize(vec2(xy, major - xx))
                             : (xx >= yy ? vec2(1.0, 0.0) : vec2(0.0, 1.0));
  vec2 offset = extent * (corner.x * sqrt(major) * axis
                        + corner.y * sqrt(minor) * vec2(-axis.y, axis.x));

  v_center = focal * center.xy / center.z + principal;
  v_conic = vec3(yy, -xy, xx) / determinant;
  v_color = vec4(color, opacity);
  vec2 clip = 2.0 * (v_center + offset) / u_size - 1.0;
  gl_Position = vec4(clip.x, -clip.y, 0.0, 1.0);
}
`;

const SPLAT_FRAGMENT_SHADER = `#version 300 es
precision highp float;
uniform vec2 u_size;
flat in vec2 v_center;
flat in vec3 v_conic;
flat in vec4 v_color;
out vec4 color;

void main() {
  vec2 d = vec2(gl_FragCoord.x, u_size.y - gl_FragCoord.y) - v_center;
  float sigma = 0.5 * (v_conic.x * d.x * d.x + v_conic.z * d.y * d.y) + v_conic.y * d.x * d.y;
  float alpha = min(0.999, v_color.a * exp(-sigma));
  if (sigma < 0.0 || alpha < 1.0 / 255.0) discard;
  color = vec4(v_color.rgb * alpha, alpha);
}
`;

const SCREEN_VERTEX_SHADER = `#version 300 es
/** The corners of [-1, 1]^2 as a strip. */
void main() {
  gl_Position = vec4(ivec2(gl_VertexID & 1, gl_VertexID >> 1) * 2 - 1, 0, 1);
}
`;

const SCREEN_FRAGMENT_SHADER = `#version 300 es
precision highp float;
uniform sampler2D u_splats; // premultiplied
uniform sampler2D u_plate;
uniform vec2 u_size; // of the output, pixels
uniform vec4 u_plate_map; // plate coordinates in [0, 1] = pixel * xy + zw
uniform float u_plate_weight;
uniform vec3 u_plain;
out vec4 color;

void main() {
  vec2 pixel = vec2(gl_FragCoord.x, u_size.y - gl_FragCoord.y);
  vec3 plate = texture(u_plate, pixel * u_plate_map.xy + u_plate_map.zw).rgb;
  vec3 behind = mix(u_plain, plate, u_plate_weight);
  vec4 splats = texelFetch(u_splats, ivec2(gl_FragCoord.xy), 0);
  color = vec4(splats.rgb + (1.0 - splats.a) * behind, 1.0);
}
`;
