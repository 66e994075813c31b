#ifndef CHIASM_IMAGE_CODEC_H
#define CHIASM_IMAGE_CODEC_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

// Decoders for JPEG (libjpeg) and PNG (libpng), and the two loops of a resize.
//
// Both libraries report errors by longjmp. Every jump starts and ends inside one of these
// functions, so none crosses a Swift frame.

typedef enum {
  CHIASM_IMAGE_OK = 0,
  /// The bytes are not a picture of this format.
  CHIASM_IMAGE_MALFORMED,
  /// A variant of the format that is not decoded.
  CHIASM_IMAGE_UNSUPPORTED,
  /// The bytes end before the last row.
  CHIASM_IMAGE_TRUNCATED,
  /// Bytes in the middle are wrong.
  CHIASM_IMAGE_DAMAGED,
  CHIASM_IMAGE_TOO_MANY_SCANS,
  CHIASM_IMAGE_OUT_OF_MEMORY,
} chiasm_image_status;

typedef struct {
  /// Bytes the decoder may allocate beside the output. 0: no bound.
  size_t max_memory;
  /// Scans of a multi-scan JPEG.
  uint32_t max_scans;
  /// Whether the rows that a truncated file lacks are filled in rather than an error.
  int fill_truncated;
} chiasm_image_options;

typedef struct {
  /// 0 until the header has been read.
  uint32_t width, height;
  /// Rows that were decoded in full before an error.
  uint32_t rows_read;
  /// What went wrong, NUL-terminated; empty after success.
  char message[200];
} chiasm_image_report;

/// Reads width and height; allocates nothing that grows with the picture.
chiasm_image_status chiasm_jpeg_header(
    const void *bytes, size_t count, chiasm_image_report *report);
chiasm_image_status chiasm_png_header(
    const void *bytes, size_t count, chiasm_image_report *report);

/// Decodes to row-major interleaved RGB.
///
/// `rgb` holds `capacity` bytes, at least 3 · width · height of the header. All of them are
/// written after CHIASM_IMAGE_OK; after an error some may be.
chiasm_image_status chiasm_jpeg_decode(
    const void *bytes, size_t count, const chiasm_image_options *options, uint8_t *rgb,
    size_t capacity, chiasm_image_report *report);
chiasm_image_status chiasm_png_decode(
    const void *bytes, size_t count, const chiasm_image_options *options, uint8_t *rgb,
    size_t capacity, chiasm_image_report *report);

/// Fraction bits of a resampling coefficient: 32, less 8 for the pixel, less 2 for the
/// overshoot of the filter's negative lobes.
#define CHIASM_RESAMPLE_BITS 22

/// One output row of the horizontal pass: pixel x is the sum of `length[x]` pixels of `row`
/// from `start[x]` on, weighted by `weights[x * stride ...]`, rounded and clipped to 8 bits.
void chiasm_resample_row(
    const uint8_t *row, const int32_t *start, const int32_t *length, const int32_t *weights,
    size_t stride, uint8_t *output, size_t width);

/// One output row of the vertical pass: the weighted sum of `length` rows of `row_bytes` bytes.
void chiasm_resample_column(
    const uint8_t *first_row, size_t row_bytes, const int32_t *weights, size_t length,
    uint8_t *output);

#ifdef __cplusplus
}
#endif

#endif
