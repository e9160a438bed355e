"""The three shaders of the renderer, GLSL 3.30.

Lens distortion is applied to vertices, not pixels: each vertex is projected as by `mvpose.geometry.lens`, so that no
image is resampled and the stored camera is exact at every vertex. Triangles stay straight between their corners, which
is why large surfaces are finely subdivided (see `surfaces.py`). Beyond the radius up to which a lens is one-to-one, the
distortion is extrapolated linearly, and nothing is drawn there.
"""

LENS = """
uniform mat4x3 camera_from_world;   // columns: three axes, then the translation
uniform vec2 focal, centre, size;   // of the image that is drawn, in its own pixels
uniform int lens_model;             // 0 Brown-Conrady, 1 Kannala-Brandt, 2 Human3.6M
uniform float lens[12];
uniform float lens_limit;
uniform vec2 near_far;

vec2 distorted(vec2 p) {
    float r2 = dot(p, p);
    if (lens_model == 1) {
        float r = max(sqrt(r2), 1e-9), a = atan(r), t = a * a;
        return p * a * (1 + t * (lens[0] + t * (lens[1] + t * (lens[2] + t * lens[3])))) / r;
    }
    float radial = (1 + r2 * (lens[0] + r2 * (lens[1] + r2 * lens[4])))
                 / (1 + r2 * (lens[5] + r2 * (lens[6] + r2 * lens[7])));
    float tangential = lens[2] * p.y + lens[3] * p.x;
    float common_factor = radial + (lens_model == 2 ? 1 : 2) * tangential;
    vec2 prism = vec2(lens[8] + lens[9] * r2, lens[10] + lens[11] * r2);
    return p * common_factor + r2 * (lens[3] * vec2(1, 0) + lens[2] * vec2(0, 1) + prism);
}

out float radius_share;

vec4 projected(vec3 world) {
    vec3 p = camera_from_world * vec4(world, 1);
    float r = length(p.xy);
    vec2 at;                        // distorted point on the plane z = 1, times the depth
    radius_share = p.z > 1e-4 ? r / (p.z * lens_limit) : 2.0;
    if (radius_share < 1.0) at = distorted(p.xy / p.z) * p.z;
    else at = distorted(p.xy / max(r, 1e-9) * lens_limit) / lens_limit * r;
    vec2 pixel = focal * at + (centre + 0.5) * p.z;         // times the depth
    vec2 clip = vec2(2 * pixel.x / size.x - p.z, 2 * pixel.y / size.y - p.z);
    float n = near_far.x, f = near_far.y;
    // Row 0 of the buffer is the top row of the image: no flip is needed on reading.
    return vec4(clip, ((f + n) * p.z - 2 * f * n) / (f - n), p.z);
}
"""

_LIGHT = """
uniform sampler2DShadow shadow_map;
uniform mat4 shadow_from_world;
uniform vec3 camera_world;
uniform vec3 key_direction, key_colour;         // towards the light
uniform vec3 fill_direction, fill_colour;
uniform vec3 sky_colour, ground_colour;         // ambient light from above and from below
uniform vec3 exposure;                          // of the three channels: exposure and white balance
uniform float contrast;

float lit_by_key(vec3 world, vec3 normal) {
    vec3 p = (shadow_from_world * vec4(world + 0.02 * normal, 1)).xyz * 0.5 + 0.5;
    if (any(lessThan(p, vec3(0))) || any(greaterThan(p, vec3(1)))) return 1.0;
    // Four texels weighted by the hardware; a second lookup would cost 2 ms more per view on llvmpipe.
    return texture(shadow_map, vec3(p.xy, p.z - 0.0015));
}

vec3 light(vec3 world, vec3 normal, float soft, float gloss, vec3 albedo) {
    float facing = dot(normal, key_direction);
    // Skin and cloth scatter light past the terminator: `soft` extends it.
    float key = max((facing + soft) / (1 + soft), 0.0);
    if (facing > -soft) key *= lit_by_key(world, normal);
    float fill = max((dot(normal, fill_direction) + 0.4) / 1.4, 0.0);
    vec3 halfway = normalize(key_direction + normalize(camera_world - world));
    float h = max(dot(normal, halfway), 0.0), h4 = h * h * h * h, h8 = h4 * h4;
    float shine = gloss * key * h8 * h8 * h8;
    vec3 ambient = mix(ground_colour, sky_colour, normal.z * 0.5 + 0.5);
    return albedo * (ambient + key * key_colour + fill * fill_colour) + shine * key_colour;
}

vec3 developed(vec3 radiance) {
    vec3 x = radiance * exposure;
    x = x * (1 + x * 0.12) / (1 + 0.55 * x);    // a shoulder instead of hard clipping
    vec3 y = sqrt(clamp(x, 0.0, 1.0));          // gamma 2 in both directions: `pow` took 6 of 15 ms per view
    return mix(y, y * y * (3 - 2 * y), contrast);
}
"""

PERSON_VERTEX = (
    "#version 330\n"
    + LENS
    + """
in vec3 in_position; in vec3 in_normal; in vec2 in_uv;
out vec3 world; out vec3 normal; out vec2 uv;
void main() {
    world = in_position; normal = in_normal; uv = in_uv;
    gl_Position = projected(in_position);
}
"""
)
PERSON_FRAGMENT = (
    "#version 330\n"
    + _LIGHT
    + """
uniform sampler2D image; uniform vec3 tint; uniform float gloss;
in vec3 world; in vec3 normal; in vec2 uv; in float radius_share;
out vec4 colour;
void main() {
    vec4 texel = texture(image, uv);
    if (texel.a < 0.45 || radius_share > 1.0) discard;
    vec3 n = normalize(normal);
    if (!gl_FrontFacing) n = -n;
    vec3 albedo = texel.rgb * texel.rgb * tint;
    colour = vec4(developed(light(world, n, 0.25, gloss, albedo)), 1);
}
"""
)

SURFACE_VERTEX = (
    "#version 330\n"
    + LENS
    + """
in vec3 in_position; in vec3 in_normal; in vec2 in_uv; in vec3 in_first; in vec3 in_second; in vec2 in_pattern;
out vec3 world; out vec2 uv;
flat out vec3 normal; flat out vec3 first; flat out vec3 second; flat out vec2 pattern;
void main() {
    world = in_position; normal = in_normal; uv = in_uv; first = in_first; second = in_second;
    pattern = in_pattern;
    gl_Position = projected(in_position);
}
"""
)
SURFACE_FRAGMENT = (
    "#version 330\n"
    + _LIGHT
    + """
uniform sampler2DArray patterns;
in vec3 world; in vec2 uv; in float radius_share;
flat in vec3 normal; flat in vec3 first; flat in vec3 second; flat in vec2 pattern;
out vec4 colour;
void main() {
    if (radius_share > 1.0) discard;
    float grime = texture(patterns, vec3(uv * 0.23 + 0.37, 0)).r;
    vec3 albedo = mix(first, second, texture(patterns, vec3(uv, pattern.x)).r) * (0.87 + 0.26 * grime);
    colour = vec4(developed(light(world, normal, 0.0, 0.05, albedo) + pattern.y * albedo), 1);
}
"""
)

SHADOW_VERTEX = """
#version 330
uniform mat4 shadow_from_world;
in vec3 in_position;
void main() { gl_Position = shadow_from_world * vec4(in_position, 1); }
"""
SHADOW_FRAGMENT = """
#version 330
void main() {}
"""
