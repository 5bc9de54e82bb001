/**
 * From weights to pixels on the graphics chip, as avatar3d/avatar/state.py documents it and
 * avatar3d/avatar/deform.py and avatar3d.kernels.rasterize compute it: head vertices, Gaussians of
 * the picture, then classic EWA splatting (Zwicker et al. 2001; Kerbl et al. 2023) with 0.3 px
 * low-pass, alpha = min(0.999, opacity exp(-sigma)), nothing under 1/255. Image coordinates run
 * right and down, the first pixel centre is (0.5, 0.5).
 *
 * Results between the steps are floats kept as bits in integer textures, which every WebGL2 can
 * draw into; float textures would need an extension that some phones lack.
 */

const TEXTURE_WIDTH = 2048;
/**
 * Texels per Gaussian in `u_fixed`: quat | scale, opacity | color, torso weight |
 * corners, basis step of position | bary, of quat | position, of color.
 */
const FIXED_TEXELS = 6;
const BASIS_ROWS = 10; // position 3, quat 4, color 3
const MAX_BASIS = 64;
const MAX_ROWS = 256;

const HEADER = `#version 300 es
precision highp float;
precision highp int;
precision highp sampler2D;
precision highp isampler2D;
precision highp usampler2D;
const int WIDTH = ${TEXTURE_WIDTH};
ivec2 place(int texel) { return ivec2(texel % WIDTH, texel / WIDTH); }
`;

/** One texel of the target is one vertex of the head. */
const VERTICES_SHADER = `${HEADER}
uniform sampler2D u_rest; // two texels a vertex: x y z eye | first row entry, end of them
uniform isampler2D u_rows; // displacement of a vertex in steps of its row, row
uniform vec4 u_steps[${MAX_ROWS / 4}];
uniform mat3 u_eyes[2];
uniform vec3 u_eye_centers[2];
out uvec4 vertex;

void main() {
  int index = int(gl_FragCoord.y) * WIDTH + int(gl_FragCoord.x);
  vec4 rest = texelFetch(u_rest, place(2 * index), 0);
  ivec2 span = ivec2(texelFetch(u_rest, place(2 * index + 1), 0).xy);
  vec3 point = rest.xyz;
  for (int i = span.x; i < span.y; i++) {
    ivec4 entry = texelFetch(u_rows, place(i), 0);
    point += u_steps[entry.w >> 2][entry.w & 3] * vec3(entry.xyz);
  }
  if (rest.w > 0.5) {
    int side = rest.w > 1.5 ? 1 : 0;
    point = u_eye_centers[side] + u_eyes[side] * (point - u_eye_centers[side]);
  }
  vertex = uvec4(floatBitsToUint(point), 0u);
}
`;

/** One texel of the targets is one Gaussian as it appears in the picture. */
const GAUSSIANS_SHADER = `${HEADER}
uniform sampler2D u_fixed;
uniform usampler2D u_vertices;
uniform isampler2D u_basis;
uniform int u_count;
uniform int u_basis_count;
uniform int u_basis_texels; // per attribute: ceil(K / 4)
uniform vec4 u_basis_weights[${MAX_BASIS / 4}];
uniform mat4 u_head; // to the view, as T_camera_head
uniform mat4 u_torso;
uniform vec4 u_camera; // fx, fy, cx, cy in pixels
uniform vec2 u_size; // pixels

layout(location = 0) out uvec4 spot; // center x, y in pixels, depth, halves of r and g
layout(location = 1) out uvec4 shape; // xx, xy and determinant of the covariance, halves of b and opacity

vec3 vertex(float index) { return uintBitsToFloat(texelFetch(u_vertices, place(int(index)), 0).xyz); }

mat3 rotation(vec4 q) {
  q /= max(length(q), 1e-12);
  float w = q.x, x = q.y, y = q.z, z = q.w;
  return mat3(
    1.0 - 2.0 * (y * y + z * z), 2.0 * (x * y + w * z), 2.0 * (x * z - w * y),
    2.0 * (x * y - w * z), 1.0 - 2.0 * (x * x + z * z), 2.0 * (y * z + w * x),
    2.0 * (x * z + w * y), 2.0 * (y * z - w * x), 1.0 - 2.0 * (x * x + y * y));
}

/** Displacement of attribute \`row\` of Gaussian \`index\`, in its steps. */
float shift(int index, int row) {
  float sum = 0.0;
  int start = (${BASIS_ROWS} * index + row) * u_basis_texels;
  for (int k = 0; k < u_basis_texels; k++) {
    sum += dot(vec4(texelFetch(u_basis, place(start + k), 0)), u_basis_weights[k]);
  }
  return sum;
}

void main() {
  int index = int(gl_FragCoord.y) * WIDTH + int(gl_FragCoord.x);
  if (index >= u_count) discard;
  vec4 fixed_[${FIXED_TEXELS}];
  for (int i = 0; i < ${FIXED_TEXELS}; i++) {
    fixed_[i] = texelFetch(u_fixed, place(${FIXED_TEXELS} * index + i), 0);
  }
  vec4 quat = fixed_[0], scale_opacity = fixed_[1];
  vec3 color = fixed_[2].rgb, corners = fixed_[3].xyz, point = fixed_[5].xyz;
  if (index < u_basis_count) {
    point += fixed_[3].w * vec3(shift(index, 0), shift(index, 1), shift(index, 2));
    quat += fixed_[4].w *
      vec4(shift(index, 3), shift(index, 4), shift(index, 5), shift(index, 6));
    color += fixed_[5].w * vec3(shift(index, 7), shift(index, 8), shift(index, 9));
  }

  mat3 axes = rotation(quat);
  if (corners.x >= 0.0) {
    vec3 a = vertex(corners.x), b = vertex(corners.y), c = vertex(corners.z);
    vec3 u = b - a;
    u /= max(length(u), 1e-12);
    vec3 n = cross(u, c - a);
    n /= max(length(n), 1e-12);
    mat3 triangle = mat3(u, cross(n, u), n); // first edge, normal x first edge, normal
    axes = triangle * axes;
    point = mat3(a, b, c) * fixed_[4].xyz + triangle * point;
  }
  float torso = fixed_[2].w;
  vec3 center = mix((u_head * vec4(point, 1.0)).xyz, (u_torso * vec4(point, 1.0)).xyz, torso);
  axes = (torso < 0.5 ? mat3(u_head) : mat3(u_torso)) * axes;
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
  // Cauchy-Binet: needles do not cancel as they would in xx * yy - xy * xy.
  vec3 area = cross(px, py);
  float determinant = dot(area, area) + 0.3 * (dot(px, px) + dot(py, py)) + 0.09;
  vec2 pixel = focal * center.xy / center.z + principal;
  spot = uvec4(floatBitsToUint(vec3(pixel, center.z)), packHalf2x16(color.rg));
  shape = uvec4(floatBitsToUint(vec3(dot(px, px) + 0.3, dot(px, py), determinant)),
                packHalf2x16(vec2(color.b, scale_opacity.w)));
}
`;

const SPLAT_VERTEX_SHADER = `${HEADER}
uniform usampler2D u_order; // from far to near
uniform usampler2D u_spots;
uniform usampler2D u_shapes;
uniform vec2 u_size; // pixels

flat out vec2 v_center;
flat out vec3 v_conic;
flat out vec4 v_color; // straight color, opacity

const float NEAR = 0.01;

/** Four vertices per Gaussian, the corners of [-1, 1]^2. */
void main() {
  vec2 corner = vec2(ivec2(gl_VertexID & 1, (gl_VertexID >> 1) & 1) * 2 - 1);
  int index = int(texelFetch(u_order, place(gl_VertexID >> 2), 0).r);
  uvec4 spot = texelFetch(u_spots, place(index), 0);
  uvec4 shape = texelFetch(u_shapes, place(index), 0);
  v_color = vec4(unpackHalf2x16(spot.w), unpackHalf2x16(shape.w));
  if (uintBitsToFloat(spot.z) < NEAR || v_color.a < 1.0 / 255.0) {
    gl_Position = vec4(0.0, 0.0, 2.0, 1.0);
    return;
  }
  vec3 covariance = uintBitsToFloat(shape.xyz);
  float xx = covariance.x, xy = covariance.y, determinant = covariance.z;
  float yy = (determinant + xy * xy) / xx;

  // The quad spans the ellipse on which alpha falls to 1/255.
  float extent = sqrt(2.0 * log(255.0 * v_color.a));
  float middle = 0.5 * (xx + yy);
  float major = middle + length(vec2(0.5 * (xx - yy), xy)), minor = determinant / major;
  vec2 axis = abs(xy) > 1e-6 ? normalize(vec2(xy, major - xx))
                             : (xx >= yy ? vec2(1.0, 0.0) : vec2(0.0, 1.0));
  vec2 offset = extent * (corner.x * sqrt(major) * axis
                        + corner.y * sqrt(minor) * vec2(-axis.y, axis.x));
  v_center = uintBitsToFloat(spot.xy);
  v_conic = vec3(yy, -xy, xx) / determinant;
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
uniform vec4 u_plain; // color, alpha
out vec4 color; // premultiplied

void main() {
  vec2 pixel = vec2(gl_FragCoord.x, u_size.y - gl_FragCoord.y);
  vec3 plate = texture(u_plate, pixel * u_plate_map.xy + u_plate_map.zw).rgb;
  vec4 behind = mix(vec4(u_plain.rgb * u_plain.a, u_plain.a), vec4(plate, 1.0), u_plate_weight);
  vec4 splats = texelFetch(u_splats, ivec2(gl_FragCoord.xy), 0);
  color = splats + (1.0 - splats.a) * behind;
}
`;
