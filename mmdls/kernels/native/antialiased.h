// A small network that halves its maps with little aliasing, and the sums over the pixels of its last map.
//
// The first layer is a convolution of 5 x 5 with stride 2 and ReLU. Each stage blurs the map by (1, 2, 1) in both
// directions at every second pixel, normalises the blurred one over channels and pixels, and puts beside it a convolution
// of 3 x 3 with ReLU of the normalised one. Some images at a time go through all layers, so that maps stay in the cache.

#pragma once

#include <cmath>

#include "planes.h"

namespace {

struct Stem {
    int ci, co, height, width;
    const float *filters, *bias;  // (co, ci, 5, 5), (co,)
    Window window = window_5x5(height, width);

    Buffer packed_filters() const {
        return packed(co, ci, 25, [this](int k, int c, int t) { return filters[(k * ci + c) * 25 + t]; });
    }
    size_t in() const { return size_t(ci) * height * width; }
    size_t out() const { return size_t(co) * window.pixels(); }
};

struct Stage {
    int c, co, height, width;
    const float *norm_weight, *norm_bias, *filters, *bias;  // (c,), (c,), (co, c, 3, 3), (co,)
    Window window = window_3x3((height + 1) / 2, (width + 1) / 2);

    Buffer packed_filters() const {
        return packed(co, c, 9, [this](int k, int j, int t) { return filters[(k * c + j) * 9 + t]; });
    }
    Buffer backwards() const {  // those that give the gradient of what is convolved
        return packed(c, co, 9, [this](int j, int k, int t) { return filters[(k * c + j) * 9 + 8 - t]; });
    }
    size_t blurred() const { return size_t(c) * window.pixels(); }
    size_t found() const { return size_t(co) * window.pixels(); }
    size_t out() const { return size_t(c + co) * window.pixels(); }
};

// Images (n, ci, height, width). Parameters in the order of the network: filters and bias of the first layer; of each
// stage the normalisation's weight and bias, filters and bias.
struct Antialiased {
    int64_t n;
    Stem stem;
    std::vector<Stage> stages;
    double epsilon;
    std::vector<Buffer> filters;  // packed: forward those of all layers, backward those of the stages

    Antialiased(int64_t n, int ci, int height, int width, int depth, const int* found, const float* const* parameters,
                double epsilon, bool is_forward)
        : n(n), stem{ci, found[0], height, width, parameters[0], parameters[1]}, epsilon(epsilon) {
        int channels = found[0];
        const Window* before = &stem.window;
        stages.reserve(depth - 1);
        for (int i = 1; i < depth; i++) {
            const float* const* own = parameters + 4 * i - 2;
            stages.push_back(Stage{channels, found[i], before->height, before->width, own[0], own[1], own[2], own[3]});
            channels += found[i];
            before = &stages.back().window;
        }
        if (is_forward) filters.push_back(stem.packed_filters());
        for (const Stage& stage : stages) filters.push_back(is_forward ? stage.packed_filters() : stage.backwards());
    }
    const Window& last() const { return stages.empty() ? stem.window : stages.back().window; }
    int channels() const { return stages.empty() ? stem.co : stages.back().c + stages.back().co; }
    size_t maps() const {  // numbers of all maps of an image, one map after another
        size_t sum = stem.out();
        for (const Stage& stage : stages) sum += stage.out();
        return sum;
    }
    size_t blurred() const {  // numbers of all blurred maps of an image
        size_t sum = 0;
        for (const Stage& stage : stages) sum += stage.blurred();
        return sum;
    }
    size_t masks() const {  // of all layers
        size_t sum = masks_of(stem.out());
        for (const Stage& stage : stages) sum += masks_of(stage.found());
        return sum;
    }
    int64_t images() const { return last().images(); }  // that go through all layers together
    // Parts that sum up gradients on their own, whatever the number of threads.
    int64_t parts() const { return std::min<int64_t>((n + images() - 1) / images(), 16); }
    std::vector<size_t> sizes() const {  // of the parameters
        std::vector<size_t> found{size_t(stem.co) * stem.ci * 25, size_t(stem.co)};
        for (const Stage& stage : stages)
            found.insert(found.end(), {size_t(stage.c), size_t(stage.c), size_t(stage.co) * stage.c * 9, size_t(stage.co)});
        return found;
    }
};

// work(first, count) for as many of some images as stand in one plane.
template <class Work>
inline void each_stack(const Window& window, int count, Work work) {
    for (int first = 0; first < count; first += window.images()) work(first, std::min(window.images(), count - first));
}

// What one thread works with. Planes are as large as the largest layer needs, but a border of one layer is the inside of
// another: each layer has its own.
struct LayerState {
    Planes planes;
    Buffer sums;

    LayerState(const Window& window, int channels)
        : planes(channels * window.plane), sums(buffer(OUTPUTS * size_t(window.places()))) {}
};

struct AntialiasedState {
    std::vector<LayerState> layers;
    Buffer line, maps;            // maps of some images, net.maps() apart
    std::vector<double> moments;  // of their blurred maps (images, stages, 2)

    explicit AntialiasedState(const Antialiased& net)
        : line(buffer(net.stem.width + 3)), maps(buffer(net.images() * net.maps())),
          moments(net.images() * 2 * net.stages.size()) {
        layers.emplace_back(net.stem.window, net.stem.ci);
        for (const Stage& stage : net.stages) layers.emplace_back(stage.window, stage.c);
    }
};

// Channels (c, height, width), blurred -> (c, h, w). `line` holds width + 3 numbers.
void blur(const float* x, int c, int height, int width, float* line, float* y) {
    int h = (height + 1) / 2, w = (width + 1) / 2;
    line[0] = line[width + 1] = line[width + 2] = 0;
    for (; c > 0; c--, x += size_t(height) * width)
        for (int row = 0; row < h; row++, y += w) {
            const float *middle = x + size_t(2 * row) * width, *above = middle - width, *below = middle + width;
            for (int i = 0; i < width; i++) line[i + 1] = .5f * middle[i];
            if (row > 0)
                for (int i = 0; i < width; i++) line[i + 1] += .25f * above[i];
            if (2 * row + 1 < height)
                for (int i = 0; i < width; i++) line[i + 1] += .25f * below[i];
            for (int i = 0; i < w; i++) y[i] = .5f * line[2 * i + 1] + .25f * (line[2 * i] + line[2 * i + 2]);
        }
}

// The gradient (c, height, width) of what was blurred, from that of the blurred (c, h, w). `line` holds w + 1 numbers.
void blur_gradient(const float* gradient, int c, int height, int width, float* line, float* into) {
    int h = (height + 1) / 2, w = (width + 1) / 2;
    line[w] = 0;
    for (; c > 0; c--, gradient += size_t(h) * w)
        for (int row = 0; row < height; row++, into += width) {
            const float* one = gradient + size_t(row / 2) * w;
            if (row % 2 == 0)
                for (int i = 0; i < w; i++) line[i] = .5f * one[i];
            else if (row + 1 < height)
                for (int i = 0; i < w; i++) line[i] = .25f * (one[i] + one[w + i]);
            else
                for (int i = 0; i < w; i++) line[i] = .25f * one[i];
            for (int i = 0; i < width / 2; i++) {
                into[2 * i] = .5f * line[i];
                into[2 * i + 1] = .25f * (line[i] + line[i + 1]);
            }
            if (width % 2) into[width - 1] = .5f * line[w - 1];
        }
}

// One image -> its place in planes of even and odd rows and columns.
void spread(const Stem& stem, const float* x, float* planes) {
    const int* offsets = stem.window.offsets.data();
    for (int c = 0; c < stem.ci; c++, planes += stem.window.plane)
        for (int y = 0; y < stem.height; y++, x += stem.width) {
            float* even = planes + offsets[y % 2 * 5] + y / 2 * stem.window.row() + stem.window.inside();
            float* odd = planes + offsets[y % 2 * 5 + 1] + y / 2 * stem.window.row() + stem.window.inside();
            for (int i = 0; i < stem.width / 2; i++) even[i] = x[2 * i], odd[i] = x[2 * i + 1];
            if (stem.width % 2) even[stem.width / 2] = x[stem.width - 1];
        }
}

// The mean of an image's channels and 1 / their deviation.
void find_moments(const float* x, size_t n, double epsilon, double* moments) {
    double sum = sum_of(x, n), mean = sum / double(n), variance = sum_of_products(x, x, n) / double(n) - mean * mean;
    moments[0] = mean;
    moments[1] = 1 / std::sqrt((variance < 0 ? 0 : variance) + epsilon);
}

// Blurred channels of an image, normalised -> the inside of their planes.
void normalise(const Stage& stage, const float* blurred, const double* moments, float* planes) {
    const Window& window = stage.window;
    for (int c = 0; c < stage.c; c++) {
        float scale = float(moments[1] * stage.norm_weight[c]);
        float shift = float(stage.norm_bias[c] - moments[0] * moments[1] * stage.norm_weight[c]);
        float* to = planes + c * window.plane + window.inside();
        for (int row = 0; row < window.height; row++, to += window.row(), blurred += window.width)
            for (int i = 0; i < window.width; i++) to[i] = blurred[i] * scale + shift;
    }
}

// The gradient of an image's blurred channels, from that of what they are normalised to, in its place; `carried` is what
// comes to it from the map itself. What the image adds to the gradients of the normalisation's weight and bias.
void normalise_gradient(const Stage& stage, const float* blurred, const double* moments, const float* carried,
                        float* gradient, float* of_weight, float* of_bias) {
    size_t pixels = stage.window.pixels();
    double mean = moments[0], scale = moments[1], n = double(stage.blurred()), sum = 0, product = 0;
    for (int c = 0; c < stage.c; c++) {
        double own = sum_of(gradient + c * pixels, pixels);
        double normalised = scale * (sum_of_products(gradient + c * pixels, blurred + c * pixels, pixels) - mean * own);
        of_weight[c] += float(normalised);
        of_bias[c] += float(own);
        sum += stage.norm_weight[c] * own;
        product += stage.norm_weight[c] * normalised;
    }
    double slope = -scale * scale * product / n;
    float by_value = float(slope), shift = float(-scale * sum / n - slope * mean);
    for (int c = 0; c < stage.c; c++) {
        float own = float(scale * stage.norm_weight[c]);
        for (size_t i = c * pixels; i < (c + 1) * pixels; i++)
            gradient[i] = gradient[i] * own + (blurred[i] * by_value + shift) + carried[i];
    }
}

// What is kept of images for their gradient: blurred maps (images, net.blurred()), their moments (images, stages, 2), and
// where layers pass ReLU (images, net.masks()).
struct Remembered {
    float* blurred;
    double* moments;
    Mask* masks;

    Remembered of(const Antialiased& net, int64_t image) const {
        return {blurred + image * net.blurred(), moments + image * 2 * net.stages.size(), masks + image * net.masks()};
    }
};

// What is kept of some images that went forward.
void keep(const Antialiased& net, const AntialiasedState& own, int images, const Remembered& kept) {
    const float* maps = own.maps.get();
    std::copy_n(own.moments.data(), images * 2 * net.stages.size(), kept.moments);
    for (int i = 0; i < images; i++) {
        Remembered image = kept.of(net, i);
        note_passing(maps, net.stem.out(), image.masks);
        image.masks += masks_of(net.stem.out());
        maps += net.stem.out();
        for (const Stage& stage : net.stages) {
            std::copy_n(maps, stage.blurred(), image.blurred);
            note_passing(maps + stage.blurred(), stage.found(), image.masks);
            image.blurred += stage.blurred();
            image.masks += masks_of(stage.found());
            maps += stage.out();
        }
    }
}

inline float rectified(float x) { return x <= 0 ? 0 : x; }  // NaN stays NaN

// Some images -> own.maps and own.moments.
void forward(const Antialiased& net, AntialiasedState& own, const float* x, int images) {
    const Stem& stem = net.stem;
    float* maps = own.maps.get();
    size_t apart = net.maps();
    each_stack(stem.window, images, [&](int first, int count) {
        LayerState& layer = own.layers[0];
        for (int i = 0; i < count; i++)
            spread(stem, x + (first + i) * stem.in(), layer.planes.get() + i * stem.window.image());
        for (int k = 0; k < stem.co; k += OUTPUTS) {
            correlate(stem.window, count, layer.planes.get(), stem.ci, net.filters[0].get() + size_t(k) * stem.ci * 25,
                      layer.sums.get());
            for (int i = 0; i < count; i++)
                gather(stem.window, layer.sums.get() + i * stem.window.image(),
                       maps + (first + i) * apart + k * stem.window.pixels(),
                       [&](float sum, int j) { return rectified(sum + stem.bias[k + j]); });
        }
    });
    const float* from = maps;
    float* to = maps + stem.out();
    for (size_t s = 0; s < net.stages.size(); s++) {
        const Stage& stage = net.stages[s];
        LayerState& layer = own.layers[s + 1];
        each_stack(stage.window, images, [&](int first, int count) {
            for (int i = first; i < first + count; i++) {
                float* blurred = to + i * apart;
                double* found = own.moments.data() + (i * net.stages.size() + s) * 2;
                blur(from + i * apart, stage.c, stage.height, stage.width, own.line.get(), blurred);
                find_moments(blurred, stage.blurred(), net.epsilon, found);
                normalise(stage, blurred, found, layer.planes.get() + (i - first) * stage.window.image());
            }
            for (int k = 0; k < stage.co; k += OUTPUTS) {
                correlate(stage.window, count, layer.planes.get(), stage.c,
                          net.filters[s + 1].get() + size_t(k) * stage.c * 9, layer.sums.get());
                for (int i = 0; i < count; i++)
                    gather(stage.window, layer.sums.get() + i * stage.window.image(),
                           to + (first + i) * apart + (stage.c + k) * stage.window.pixels(),
                           [&](float sum, int j) { return rectified(sum + stage.bias[k + j]); });
            }
        });
        from = to;
        to += stage.out();
    }
}

struct AntialiasedGradientState : AntialiasedState {
    std::vector<Planes> outputs;
    Buffer blurred;

    explicit AntialiasedGradientState(const Antialiased& net) : AntialiasedState(net), blurred(nullptr, Free{0}) {
        size_t most = 1;
        outputs.emplace_back(net.stem.co * net.stem.window.plane);
        for (const Stage& stage : net.stages) {
            outputs.emplace_back(stage.co * stage.window.plane);
            most = std::max(most, stage.window.images() * stage.blurred());
        }
        blurred = buffer(most);
    }
};

// The gradient of some images' last map stands in own.maps, which has the form of their maps: what they add to the
// gradients of the parameters.
void backward(const Antialiased& net, AntialiasedGradientState& own, const float* x, int images, const Remembered& kept,
              const std::vector<float*>& into) {
    float* gradients = own.maps.get();
    size_t apart = net.maps(), at = apart, of_blurred = net.blurred(), of_masks = net.masks();
    for (size_t s = net.stages.size(); s-- > 0;) {
        const Stage& stage = net.stages[s];
        const Window& window = stage.window;
        LayerState& layer = own.layers[s + 1];
        float* const* to = into.data() + 2 + 4 * s;
        size_t before = s ? net.stages[s - 1].out() : net.stem.out(), pixels = window.pixels();
        at -= stage.out();
        of_blurred -= stage.blurred();
        of_masks -= masks_of(stage.found());
        each_stack(window, images, [&](int first, int count) {
            float* inside = own.outputs[s + 1].get() + window.inside();
            if (count < window.images()) layer.planes.clear(), own.outputs[s + 1].clear();
            for (int i = 0; i < count; i++) {
                Remembered image = kept.of(net, first + i);
                size_t found = (first + i) * apart + at + stage.blurred(), below = size_t(i) * window.image();
                normalise(stage, image.blurred + of_blurred, image.moments + 2 * s, layer.planes.get() + below);
                spread_gradient(window, image.masks + of_masks, gradients + found, stage.co, inside + below, window.plane,
                                to[3]);
            }
            add_filter_gradients(window, count, layer.planes.get(), stage.c, inside, window.plane, stage.co, to[2]);
            for (int j = 0; j < stage.c; j += OUTPUTS) {
                correlate(window, count, own.outputs[s + 1].get(), stage.co,
                          net.filters[s].get() + size_t(j) * stage.co * 9, layer.sums.get());
                for (int i = 0; i < count; i++)
                    gather(window, layer.sums.get() + i * window.image(),
                           own.blurred.get() + (size_t(i) * stage.c + j) * pixels, [](float sum, int) { return sum; });
            }
            for (int i = 0; i < count; i++) {
                Remembered image = kept.of(net, first + i);
                float *found = own.blurred.get() + i * stage.blurred(), *map = gradients + (first + i) * apart + at;
                normalise_gradient(stage, image.blurred + of_blurred, image.moments + 2 * s, map, found, to[0], to[1]);
                blur_gradient(found, stage.c, stage.height, stage.width, own.line.get(), map - before);
            }
        });
    }
    const Stem& stem = net.stem;
    each_stack(stem.window, images, [&](int first, int count) {
        Planes &planes = own.layers[0].planes, &outputs = own.outputs[0];
        if (count < stem.window.images()) planes.clear(), outputs.clear();
        for (int i = 0; i < count; i++) {
            size_t below = size_t(i) * stem.window.image();
            spread(stem, x + (first + i) * stem.in(), planes.get() + below);
            spread_gradient(stem.window, kept.of(net, first + i).masks, gradients + (first + i) * apart, stem.co,
                            outputs.get() + below, stem.window.plane, into[1]);
        }
        add_filter_gradients(stem.window, count, planes.get(), stem.ci, outputs.get(), stem.window.plane, stem.co,
                             into[0]);
    });
}

// work(state, part, first image, how many) for all images.
template <class State, class Work>
void each_group(const Antialiased& net, std::vector<State>& states, Work work) {
    int64_t parts = net.parts(), most = net.images();
    divided(parts, states, [&](State& own, int64_t begin, int64_t end) {
        for (int64_t part = begin; part < end; part++) {
            int64_t last = net.n * (part + 1) / parts;
            for (int64_t i = net.n * part / parts; i < last; i += most) work(own, part, i, int(std::min(most, last - i)));
        }
    });
}

}  // namespace
