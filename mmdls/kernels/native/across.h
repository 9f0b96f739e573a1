// Vectors across images: every lane is another image, all at the same pixel.

#pragma once

#include <immintrin.h>

#include <algorithm>
#include <cstdint>

namespace {

// Of 8 images, or 16 where an instruction set has such vectors. Half: half of the images, in double precision.
template <int N>
struct Across;

template <>
struct Across<8> {
    static constexpr int IMAGES = 8;
    typedef float Pixel __attribute__((vector_size(32), may_alias));
    typedef float Single __attribute__((vector_size(16), may_alias));
    typedef double Half __attribute__((vector_size(32)));
    typedef uint8_t Mask;  // one bit an image

    // Of ReLU: NaN passes.
    static Mask where_passing(Pixel x) {
        return Mask(_mm256_movemask_ps(_mm256_cmp_ps(__m256(x), _mm256_setzero_ps(), _CMP_NLE_UQ)));
    }
    static Pixel only(Mask mask, Pixel x) {
        const __m256i places = _mm256_setr_epi32(1, 2, 4, 8, 16, 32, 64, 128);
        __m256i passing = _mm256_cmpeq_epi32(_mm256_and_si256(_mm256_set1_epi32(mask), places), places);
        return Pixel(_mm256_and_ps(_mm256_castsi256_ps(passing), __m256(x)));
    }
};

#ifdef __AVX512F__
template <>
struct Across<16> {
    static constexpr int IMAGES = 16;
    typedef float Pixel __attribute__((vector_size(64), may_alias));
    typedef float Single __attribute__((vector_size(32), may_alias));
    typedef double Half __attribute__((vector_size(64)));
    typedef uint16_t Mask;

    static Mask where_passing(Pixel x) { return _mm512_cmp_ps_mask(__m512(x), _mm512_setzero_ps(), _CMP_NLE_UQ); }
    static Pixel only(Mask mask, Pixel x) { return Pixel(_mm512_maskz_mov_ps(mask, __m512(x))); }
};
typedef Across<16> Widest;
constexpr int PIXELS = 4;  // beside each other, whose sums stay in the registers
#else
typedef Across<8> Widest;
constexpr int PIXELS = 2;
#endif
typedef Across<8> Narrowest;

// Sums, each image's own, in double precision.
template <class A>
struct Sum {
    typename A::Half halves[2] = {};

    static typename A::Half half(const typename A::Pixel& x, int i) {
        return __builtin_convertvector(reinterpret_cast<const typename A::Single*>(&x)[i], typename A::Half);
    }
    void add(const typename A::Pixel& x) {
        for (int i = 0; i < 2; i++) halves[i] += half(x, i);
    }
    void add_product(const typename A::Pixel& x, const typename A::Pixel& y) {
        for (int i = 0; i < 2; i++) halves[i] += half(x, i) * half(y, i);
    }
    void add_to(double* sums) const {
        for (int i = 0; i < A::IMAGES; i++) sums[i] += (*this)[i];
    }
    double operator[](int image) const { return halves[image / (A::IMAGES / 2)][image % (A::IMAGES / 2)]; }
};

// The sum over images.
template <class A>
inline float over_images(typename A::Pixel x) {
    float sum = 0;
    for (int i = 0; i < A::IMAGES; i++) sum += x[i];
    return sum;
}

// A row of n pixels of each of some images, `apart` numbers apart, and of further images that are blank.
template <class A>
inline void read_row(const float* x, size_t apart, int images, int n, typename A::Pixel* to) {
    static const float blank[4] = {};
    for (int first = 0; first < A::IMAGES; first += 4) {
        int i = 0;
        for (; i + 4 <= n; i += 4) {
            __m128 rows[4];
            for (int l = 0; l < 4; l++) rows[l] = _mm_loadu_ps(first + l < images ? x + (first + l) * apart + i : blank);
            _MM_TRANSPOSE4_PS(rows[0], rows[1], rows[2], rows[3]);
            for (int k = 0; k < 4; k++) _mm_storeu_ps(reinterpret_cast<float*>(to + i + k) + first, rows[k]);
        }
        for (; i < n; i++)
            for (int l = first; l < first + 4; l++)
                reinterpret_cast<float*>(to + i)[l] = l < images ? x[l * apart + i] : 0;
    }
}

}  // namespace
