// Group normalisation (groups.h, pooled.h), the default encoder (antialiased.h), and convolutions of 3 x 3 pixels, stride 1,
// padding 1, by Winograd's minimal filtering in tiles of 2 x 4 output pixels.
//
// A tile is a patch of 4 x 6 pixels of the input. Patches and filters are transformed, multiplied channel by channel at
// each of 24 frequencies, and transformed back: 3 multiplications a pixel and pair of channels instead of 9. Rows use
// the points 0, 1, -1 and infinity, columns 0, 3/4, -3/4, 3/2, -3/2 and infinity, whose rounding errors are small.
//
// Maps are float32, pixel after pixel (N, H, W, C), C a multiple of 16. The file is compiled once for each instruction
// set, with its headers, and needs no library but the standard one; Python calls the functions at its end.
//
// References: Lavin A, Gray S. Fast algorithms for convolutional neural networks. CVPR, 2016. Barabasz B, Anderson A,
// Soodhalter KM, Gregg D. Error analysis and improving the accuracy of Winograd convolution for deep neural networks.
// ACM Transactions on Mathematical Software 46, 2020.

#include <algorithm>
#include <vector>

#include "antialiased.h"
#include "pair.h"
#include "pooled.h"

namespace {

// How many outputs are handled at once, so that what their filters are transformed to stays in the last cache.
int outputs_at_once(int ci, int co) {
    int panel = panel_of(co) * LANES;
    int fit = (6 << 20) / int(sizeof(float)) / (FREQUENCIES * ci);
    return std::min(co, std::max(1, fit / panel) * panel);
}

// How many tiles are handled at once, so that what is known of them stays in the second-level cache; not so few that
// filters are read more often than is worth it.
int tiles_at_once(int ci, int co) {
    int fit = 500 * 1024 / int(sizeof(float)) / (FREQUENCIES * (ci + co));
    return std::max(ci * co > 128 * 128 ? 8 : 4, fit / TILES_AT_ONCE) * TILES_AT_ONCE;
}

// What one thread works with: tiles, and what they are transformed to, of the input and of the output.
struct Workspace {
    int most;
    std::vector<Tile> tiles;
    Buffer in, out;

    Workspace(int ci, int co)
        : most(tiles_at_once(ci, co)), tiles(most), in(buffer(FREQUENCIES * apart(size_t(most) * ci))),
          out(buffer(FREQUENCIES * apart(size_t(most) * co))) {}
};

// work(how many) for the tiles from first to last, as many at once as fit; they stand in own.tiles.
template <class Work>
void each_chunk(Workspace& own, const Shape& shape, int64_t first, int64_t last, Work work) {
    for (int64_t index = first; index < last; index += own.most) {
        int count = int(std::min<int64_t>(own.most, last - index));
        for (int t = 0; t < count; t++) own.tiles[t] = tile_of(shape, index + t);
        work(count);
    }
}

// Bands of two rows of an image are handled in segments of this many, whatever the number of threads.
constexpr int SEGMENT = 32;

int segments_of(const Shape& shape) { return (shape.tiles_down() + SEGMENT - 1) / SEGMENT; }

// The same for one segment of one image, with the rows of the first layer that the tiles need.
template <class State, class Work>
void each_chunk_of_segment(State& own, const float* pixels, int64_t unit, Work work) {
    FirstLayer& layer = own.layer;
    const Shape& shape = layer.shape;
    int64_t image = unit / segments_of(shape), segment = unit % segments_of(shape);
    int64_t size = int64_t(SEGMENT) * shape.tiles_across(), begin = image * shape.tiles();
    layer.start(pixels + size_t(image) * shape.height * shape.width * layer.in_channels,
                int(segment) * SEGMENT * TILE_H - 1);
    each_chunk(own, shape, begin + segment * size, begin + std::min(shape.tiles(), (segment + 1) * size), [&](int count) {
        layer.until(own.tiles[count - 1].y + TILE_H + 1);
        work(count);
    });
}

// differentiate(state, image, what it adds to the gradients of weight and bias (2, C)) for all images.
template <class Differentiate>
void each_norm_gradient(const Grouped& maps, int threads, float* into_weight, float* into_bias,
                        Differentiate differentiate) {
    std::vector<Channels> states(threads, Channels(maps.channels));
    std::vector<double> parameters(size_t(maps.n) * 2 * maps.channels);
    divided(maps.n, states, [&](Channels& own, int64_t first, int64_t last) {
        for (int64_t i = first; i < last; i++) differentiate(own, i, parameters.data() + i * 2 * maps.channels);
    });
    for (int c = 0; c < maps.channels; c++) {
        double sums[2] = {};
        for (int64_t i = 0; i < maps.n; i++)
            for (int k = 0; k < 2; k++) sums[k] += parameters[(i * 2 + k) * maps.channels + c];
        into_weight[c] = float(sums[0]);
        into_bias[c] = float(sums[1]);
    }
}

template <class State>
std::vector<const float*> parts_of(const std::vector<State>& states, Buffer State::*field) {
    std::vector<const float*> found;
    for (auto& state : states) found.push_back((state.*field).get());
    return found;
}
template <class State>
std::vector<const double*> parts_of(const std::vector<State>& states, std::vector<double> State::*field) {
    std::vector<const double*> found;
    for (auto& state : states) found.push_back((state.*field).data());
    return found;
}

}  // namespace

extern "C" {

// GOMP_parallel, omp_get_thread_num and omp_get_num_threads of the OpenMP library whose threads are used from now on.
void mmdls_use_threads(void* parallel, void* number, void* size) {
    Team& own = team();
    own.number = reinterpret_cast<int (*)()>(number);
    own.size = reinterpret_cast<int (*)()>(size);
    own.owner = getpid();
    own.parallel = reinterpret_cast<void (*)(void (*)(void*), void*, unsigned, unsigned)>(parallel);
}

// Bytes that say where one pixel of a map is positive.
int mmdls_mask_bytes(int channels) { return channels / LANES * int(sizeof(Mask)); }

// x (n, h, w, ci), filters (co, ci, 3, 3), bias (co,) or null -> y (n, h, w, co). Backwards, filters are (ci, co, 3, 3),
// and y is the gradient of the input of the convolution whose output has gradient x.
int mmdls_conv3x3(const float* x, int64_t n, int h, int w, int ci, int co, const float* filters, const int64_t* steps,
                  int backwards, const float* bias, int rectified, float* y, int threads) {
    return guarded([&] {
        Map map{x, {n, h, w}, ci};
        Filters plain = backwards ? Filters(filters, co, ci, steps).backwards() : Filters(filters, ci, co, steps);
        int panel = panel_of(co), block = outputs_at_once(ci, co);
        Buffer u = buffer(size_t(block / (panel * LANES)) * FREQUENCIES * to_next(ci, panel));
        std::vector<Workspace> states;
        for (int i = 0; i < threads; i++) states.emplace_back(ci, block);
        for (int begin = 0; begin < co; begin += block) {
            int outputs = std::min(block, co - begin), panels = outputs / (panel * LANES), before = begin / (panel * LANES);
            divided(panels, states, [&](Workspace&, int64_t first, int64_t last) {
                transform(plain, before + first, before + last, u.get() + first * FREQUENCIES * to_next(ci, panel));
            });
            divided(n * map.shape.tiles(), states, [&](Workspace& own, int64_t first, int64_t last) {
                MapSink sink{map, plain, bias, rectified != 0, y, Lanes{}};
                bool known = begin && last - first <= own.most;
                each_chunk(own, map.shape, first, last, [&](int count) {
                    if (!known) transform_input(map, own.tiles.data(), count, own.most, own.in.get());
                    all_products(own.in.get(), count, own.most, ci, u.get(), panel, own.out.get(), outputs);
                    transform_output(own.out.get(), own.tiles.data(), count, own.most, begin, outputs, sink);
                });
            });
        }
    });
}

// x (n, h, w, ci) and the gradient (n, h, w, co) of its convolution -> those of filters (co, ci, 3, 3) and bias (co,).
int mmdls_conv3x3_gradient(const float* x, const float* gradient, int64_t n, int h, int w, int ci, int co,
                           float* filters, const int64_t* steps, float* bias, int threads) {
    struct State : Workspace {
        Buffer u;
        std::vector<double> b;
        State(int ci, int co) : Workspace(ci, co), u(buffer(FREQUENCIES * apart(size_t(ci) * co))), b(co) {}
    };
    return guarded([&] {
        Map map{x, {n, h, w}, ci}, gradients{gradient, {n, h, w}, co};
        FilterGradients into(filters, ci, co, steps);
        int block = outputs_at_once(ci, co);
        std::vector<State> states;
        for (int i = 0; i < threads; i++) states.emplace_back(ci, block);
        for (int begin = 0; begin < co; begin += block) {
            int outputs = std::min(block, co - begin);
            divided(n * map.shape.tiles(), states, [&](State& own, int64_t first, int64_t last) {
                std::fill_n(own.u.get(), FREQUENCIES * apart(size_t(ci) * outputs), 0.f);
                std::fill_n(own.b.data(), outputs, 0.);
                bool known = begin && last - first <= own.most;
                each_chunk(own, map.shape, first, last, [&](int count) {
                    if (!known) transform_input(map, own.tiles.data(), count, own.most, own.in.get());
                    transform_gradient(gradients, begin, outputs, own.tiles.data(), count, own.most, own.out.get(),
                                       own.b.data());
                    all_outer_products(own.in.get(), count, own.most, ci, own.out.get(), panel_of(co), outputs,
                                       own.u.get());
                });
            });
            divided(ci / INPUTS, states, [&](State&, int64_t first, int64_t last) {
                transform_back(parts_of(states, &State::u), outputs, into, begin, int(first) * INPUTS, int(last) * INPUTS);
            });
            add_up(parts_of(states, &State::b), outputs, bias + begin);
        }
    });
}

// Two layers with ReLU, and the sums over the pixels of the second one's map: x (n, h, w, c0) -> sums (n, c2), and
// where that map is positive, (n, h, w, bytes), or null.
int mmdls_pair_sum(const float* x, int64_t n, int h, int w, int c0, int c1, int c2, const float* filters1,
                   const int64_t* steps1, const float* bias1, const float* filters2, const int64_t* steps2,
                   const float* bias2, float* sums, void* positive, int threads) {
    struct State : Workspace {
        FirstLayer layer;
        State(const Shape& shape, const Filters& one, const float* bias, int co)
            : Workspace(one.co, co), layer(shape, one, bias, most) {}
    };
    return guarded([&] {
        Shape shape{n, h, w};
        Filters one(filters1, c0, c1, steps1), two(filters2, c1, c2, steps2);
        Buffer u = transformed(two);
        int segments = segments_of(shape);
        std::vector<double> found(size_t(n) * segments * c2);
        std::vector<State> states;
        for (int i = 0; i < threads; i++) states.emplace_back(shape, one, bias1, c2);
        divided(n * segments, states, [&](State& own, int64_t first, int64_t last) {
            for (int64_t unit = first; unit < last; unit++) {
                SumSink sink{own.layer, two, bias2, found.data() + size_t(unit) * c2, static_cast<Mask*>(positive),
                             Lanes{}, Total()};
                each_chunk_of_segment(own, x, unit, [&](int count) {
                    transform_input(own.layer, own.tiles.data(), count, own.most, own.in.get());
                    all_products(own.in.get(), count, own.most, c1, u.get(), panel_of(c2), own.out.get(), c2);
                    transform_output(own.out.get(), own.tiles.data(), count, own.most, 0, c2, sink);
                });
            }
        });
        for (int64_t i = 0; i < n; i++) {
            std::vector<const double*> parts;
            for (int k = 0; k < segments; k++) parts.push_back(found.data() + size_t(i * segments + k) * c2);
            add_up(parts, c2, sums + i * c2);
        }
    });
}

// Its gradients, from those of the sums (n, c2): of the filters of both layers (c1, c0, 3, 3) and (c2, c1, 3, 3), and of
// the biases.
int mmdls_pair_sum_gradient(const float* x, int64_t n, int h, int w, int c0, int c1, int c2, const float* filters1,
                            const int64_t* steps1, const float* bias1, const float* filters2, const int64_t* steps2,
                            const void* positive, const float* gradient, float* into1, float* into_bias1, float* into2,
                            float* into_bias2, int threads) {
    struct State : Workspace {
        FirstLayer layer;
        Buffer u2;
        std::vector<double> w1, b1, b2;
        State(const Shape& shape, const Filters& one, const float* bias, int co)
            : Workspace(one.co, co), layer(shape, one, bias, most), u2(zeros(FREQUENCIES * apart(size_t(one.co) * co))),
              w1(size_t(9) * one.ci * one.co), b1(one.co), b2(co) {}
    };
    return guarded([&] {
        Shape shape{n, h, w};
        Filters one(filters1, c0, c1, steps1), two(filters2, c1, c2, steps2);
        Buffer u = transformed(two.backwards());
        SumGradient source{gradient, static_cast<const Mask*>(positive), shape, c2};
        std::vector<State> states;
        for (int i = 0; i < threads; i++) states.emplace_back(shape, one, bias1, c2);
        divided(n * segments_of(shape), states, [&](State& own, int64_t first, int64_t last) {
            FirstLayerGradient sink{own.layer, own.w1.data(), own.b1.data(), {}, {}};
            for (int64_t unit = first; unit < last; unit++)
                each_chunk_of_segment(own, x, unit, [&](int count) {
                    transform_input(own.layer, own.tiles.data(), count, own.most, own.in.get());
                    transform_gradient(source, 0, c2, own.tiles.data(), count, own.most, own.out.get(), own.b2.data());
                    all_outer_products(own.in.get(), count, own.most, c1, own.out.get(), panel_of(c2), c2, own.u2.get());
                    transform_input(source, own.tiles.data(), count, own.most, own.out.get());
                    all_products(own.out.get(), count, own.most, c2, u.get(), panel_of(c1), own.in.get(), c1);
                    transform_output(own.in.get(), own.tiles.data(), count, own.most, 0, c1, sink);
                });
        });
        const int64_t steps[] = {int64_t(c1) * 9, 9, 3, 1};
        transform_back(parts_of(states, &State::u2), c2, FilterGradients(into2, c1, c2, steps), 0, 0, c1);
        add_up(parts_of(states, &State::b2), c2, into_bias2);
        add_up(parts_of(states, &State::b1), c1, into_bias1);
        std::vector<float> taps(size_t(9) * c0 * c1);
        add_up(parts_of(states, &State::w1), taps.size(), taps.data());
        for (int tap = 0; tap < 9; tap++)
            for (int k = 0; k < c0; k++)
                for (int c = 0; c < c1; c++) into1[(c * c0 + k) * 9 + tap] = taps[(tap * c0 + k) * c1 + c];
    });
}

// relu(group normalisation of x (n, pixels, channels) + added) -> y, and the moments of each image and group, (n, 2,
// groups); added may be null, and ReLU left out.
int mmdls_group_norm(const float* x, int64_t n, int64_t pixels, int channels, int groups, const float* weight,
                     const float* bias, double epsilon, const float* added, int rectified, float* y, double* moments,
                     int threads) {
    return guarded([&] {
        Grouped maps{n, pixels, channels, groups};
        std::vector<Channels> states(threads, Channels(channels));
        divided(n, states, [&](Channels& own, int64_t first, int64_t last) {
            for (int64_t i = first; i < last; i++) {
                size_t at = i * maps.image();
                normalise(maps, own, x + at, weight, bias, epsilon, added ? added + at : nullptr, rectified != 0, y + at,
                          moments + i * 2 * groups);
            }
        });
    });
}

// Its gradients, from that of y: of x, of what was added (or null), of weight and of bias. y is null without ReLU.
int mmdls_group_norm_gradient(const float* x, int64_t n, int64_t pixels, int channels, int groups, const float* weight,
                              const float* y, const float* gradient, const double* moments, float* into,
                              float* into_added, float* into_weight, float* into_bias, int threads) {
    return guarded([&] {
        Grouped maps{n, pixels, channels, groups};
        each_norm_gradient(maps, threads, into_weight, into_bias, [&](Channels& own, int64_t i, double* parameters) {
            size_t at = i * maps.image();
            differentiate(maps, own, x + at, weight, y ? y + at : nullptr, gradient + at, moments + i * 2 * groups,
                          into + at, into_added ? into_added + at : nullptr, parameters);
        });
    });
}

// The largest of 3 x 3 pixels around every second one of relu(group normalisation of x (n, h, w, channels)) -> y, which
// of the pixels that is, both (n, (h + 1) / 2, (w + 1) / 2, channels), unless `chosen` is null, and moments as above.
int mmdls_pooled_norm(const float* x, int64_t n, int h, int w, int channels, int groups, const float* weight,
                      const float* bias, double epsilon, float* y, double* moments, uint8_t* chosen, int threads) {
    return guarded([&] {
        Pooled maps(n, h, w, channels, groups);
        std::vector<Channels> states(threads, Channels(channels));
        divided(n, states, [&](Channels& own, int64_t first, int64_t last) {
            for (int64_t i = first; i < last; i++)
                normalise(maps, own, x + i * maps.image(), weight, bias, epsilon, y + i * maps.pooled(),
                          moments + i * 2 * groups, chosen ? chosen + i * maps.pooled() : nullptr);
        });
    });
}

// Its gradients, from that of y: of x, of weight and of bias.
int mmdls_pooled_norm_gradient(const float* x, int64_t n, int h, int w, int channels, int groups, const float* weight,
                               const uint8_t* chosen, const float* gradient, const double* moments, float* into,
                               float* into_weight, float* into_bias, int threads) {
    return guarded([&] {
        Pooled maps(n, h, w, channels, groups);
        each_norm_gradient(maps, threads, into_weight, into_bias, [&](Channels& own, int64_t i, double* parameters) {
            float* to = into + i * maps.image();
            spread_gradient(maps, chosen + i * maps.pooled(), gradient + i * maps.pooled(), to);
            differentiate(maps, own, x + i * maps.image(), weight, nullptr, to, moments + i * 2 * groups, to, nullptr,
                          parameters);
        });
    });
}

// The network of antialiased.h: x (n, ci, h, w), channels that each layer finds (depth,), parameters -> sums over the
// pixels of the last map (n, channels); and, unless they are null, what is kept for the gradient, of as many images as
// fill their lanes: blurred maps (images, ..), their moments (images, depth - 1, 2), and bytes (images / 8, ..).
int mmdls_antialiased(const float* x, int64_t n, int h, int w, int ci, int depth, const int* found,
                      const float* const* parameters, double epsilon, float* sums, float* blurred, double* moments,
                      void* masks, int threads) {
    return guarded([&] {
        Antialiased net(n, ci, h, w, depth, found, parameters, epsilon, true);
        Remembered kept{blurred, moments, static_cast<uint8_t*>(masks)};
        if (n <= Narrowest::IMAGES)
            forward<Narrowest>(net, x, kept, sums, threads);
        else
            forward<Widest>(net, x, kept, sums, threads);
    });
}

// The gradients of its parameters, from those of the sums (n, channels).
int mmdls_antialiased_gradient(const float* x, int64_t n, int h, int w, int ci, int depth, const int* found,
                               const float* const* parameters, float* blurred, double* moments, void* masks,
                               const float* gradient, float* const* into, int threads) {
    return guarded([&] {
        Antialiased net(n, ci, h, w, depth, found, parameters, 0, false);
        Remembered kept{blurred, moments, static_cast<uint8_t*>(masks)};
        if (n <= Narrowest::IMAGES)
            backward<Narrowest>(net, x, kept, gradient, into, threads);
        else
            backward<Widest>(net, x, kept, gradient, into, threads);
    });
}

}  // extern "C"
