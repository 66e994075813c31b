#include "CImageCodec.h"

#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <png.h>

typedef struct {
  const uint8_t *bytes;
  size_t count, position;
  int ended_early;
  int allocation_failed;
  size_t memory_left;
  chiasm_image_report *report;
  jmp_buf exit;
} decoder;

static void on_error(png_structp png, png_const_charp text) {
  decoder *self = png_get_error_ptr(png);
  if (self->report->message[0] == 0)
    snprintf(self->report->message, sizeof self->report->message, "%s", text);
  longjmp(self->exit, 1);
}

static void on_warning(png_structp png, png_const_charp text) {
  (void)png;
  (void)text;
}

static void on_read(png_structp png, png_bytep into, size_t count) {
  decoder *self = png_get_io_ptr(png);
  if (count > self->count - self->position) {
    self->ended_early = 1;
    png_error(png, "the data end inside a chunk");
  }
  memcpy(into, self->bytes + self->position, count);
  self->position += count;
}

// Counts what is taken and never what is given back: an upper bound that needs no
// bookkeeping, and libpng allocates each of its few buffers about once.
static png_voidp on_allocate(png_structp png, png_alloc_size_t count) {
  decoder *self = png_get_mem_ptr(png);
  void *block = NULL;
  if (count <= self->memory_left) {
    block = malloc(count);
    if (block != NULL) self->memory_left -= count;
  }
  if (block == NULL) self->allocation_failed = 1;
  return block;
}

static void on_free(png_structp png, png_voidp block) {
  (void)png;
  free(block);
}

static chiasm_image_status failure(const decoder *self, chiasm_image_status otherwise) {
  if (self->allocation_failed) return CHIASM_IMAGE_OUT_OF_MEMORY;
  if (self->ended_early) return CHIASM_IMAGE_TRUNCATED;
  return otherwise;
}

static png_structp begin(
    decoder *self, const void *bytes, size_t count, size_t max_memory,
    chiasm_image_report *report) {
  memset(self, 0, sizeof *self);
  memset(report, 0, sizeof *report);
  self->bytes = bytes;
  self->count = count;
  self->memory_left = max_memory == 0 ? SIZE_MAX : max_memory;
  self->report = report;
  return png_create_read_struct_2(
      PNG_LIBPNG_VER_STRING, self, on_error, on_warning, self, on_allocate, on_free);
}

// Reads up to the pixels. Of all chunks only IHDR and PLTE matter to the bytes that Pillow's
// `convert('RGB')` gives: gamma, profiles and transparency are ignored, so those chunks are
// skipped unread, whatever size they claim to unpack to.
static void read_header(decoder *self, png_structp png, png_infop info) {
  static const png_byte skipped[] =
      "acTL\0bKGD\0cHRM\0cICP\0cLLI\0eXIf\0fcTL\0fdAT\0gAMA\0hIST\0iCCP\0iTXt\0mDCV\0oFFs\0"
      "pCAL\0pHYs\0sBIT\0sCAL\0sPLT\0sRGB\0sTER\0tEXt\0tIME\0tRNS\0zTXt";
  png_set_read_fn(png, self, on_read);
  // The caller's own limits come after the header, with a message that names both sizes.
  png_set_user_limits(png, PNG_UINT_31_MAX, PNG_UINT_31_MAX);
  png_set_keep_unknown_chunks(png, PNG_HANDLE_CHUNK_NEVER, NULL, 0);
  png_set_keep_unknown_chunks(png, PNG_HANDLE_CHUNK_NEVER, skipped, sizeof skipped / 5);
  png_read_info(png, info);
  self->report->width = png_get_image_width(png, info);
  self->report->height = png_get_image_height(png, info);
}

chiasm_image_status chiasm_png_header(
    const void *bytes, size_t count, chiasm_image_report *report) {
  decoder self;
  png_structp volatile png = begin(&self, bytes, count, 1 << 20, report);
  png_infop volatile info = NULL;
  if (png == NULL) return CHIASM_IMAGE_OUT_OF_MEMORY;
  if (setjmp(self.exit)) {
    png_structp reader = png;
    png_infop facts = info;
    png_destroy_read_struct(&reader, &facts, NULL);
    return failure(&self, CHIASM_IMAGE_MALFORMED);
  }
  info = png_create_info_struct(png);
  if (info == NULL) png_error(png, "out of memory");
  read_header(&self, png, info);
  png_structp reader = png;
  png_infop facts = info;
  png_destroy_read_struct(&reader, &facts, NULL);
  return CHIASM_IMAGE_OK;
}

typedef struct {
  int colour_type, depth;
  uint8_t palette[256][3];
} pixel_format;

// One row of samples, in libpng's order, to RGB. `step` is the distance between two pixels of
// the output, more than one for the early passes of an interlaced picture.
static void row_to_rgb(
    const pixel_format *format, const uint8_t *row, size_t width, uint8_t *rgb, size_t step) {
  size_t next = 3 * step;
  int depth = format->depth;
  if (depth < 8) {
    uint8_t mask = (uint8_t)((1 << depth) - 1);
    int scale = 255 / mask;
    for (size_t x = 0; x < width; x++, rgb += next) {
      size_t bit = x * (size_t)depth;
      uint8_t value = (row[bit >> 3] >> (8 - depth - (int)(bit & 7))) & mask;
      if (format->colour_type == PNG_COLOR_TYPE_PALETTE) {
        memcpy(rgb, format->palette[value], 3);
      } else {
        rgb[0] = rgb[1] = rgb[2] = (uint8_t)(value * scale);
      }
    }
    return;
  }
  // Samples of 16 bits are big-endian, and Pillow keeps the high byte, but not of plain grey:
  // it reads that as a 16-bit mode, whose conversion clips instead of scaling.
  size_t bytes = (size_t)depth / 8;
  switch (format->colour_type) {
    case PNG_COLOR_TYPE_PALETTE:
      for (size_t x = 0; x < width; x++, rgb += next) memcpy(rgb, format->palette[row[x]], 3);
      break;
    case PNG_COLOR_TYPE_GRAY:
      for (size_t x = 0; x < width; x++, rgb += next, row += bytes) {
        uint8_t value = bytes == 1 ? row[0] : row[0] == 0 ? row[1] : 255;
        rgb[0] = rgb[1] = rgb[2] = value;
      }
      break;
    case PNG_COLOR_TYPE_GRAY_ALPHA:
      for (size_t x = 0; x < width; x++, rgb += next, row += 2 * bytes)
        rgb[0] = rgb[1] = rgb[2] = row[0];
      break;
    default: {
      size_t samples = format->colour_type == PNG_COLOR_TYPE_RGB ? 3 : 4;
      for (size_t x = 0; x < width; x++, rgb += next, row += samples * bytes) {
        rgb[0] = row[0];
        rgb[1] = row[bytes];
        rgb[2] = row[2 * bytes];
      }
    }
  }
}

chiasm_image_status chiasm_png_decode(
    const void *bytes, size_t count, const chiasm_image_options *options, uint8_t *rgb,
    size_t capacity, chiasm_image_report *report) {
  decoder self;
  png_structp volatile png = begin(&self, bytes, count, options->max_memory, report);
  png_infop volatile info = NULL;
  uint8_t *volatile row = NULL;
  volatile int pixels_began = 0;
  if (png == NULL) return CHIASM_IMAGE_OUT_OF_MEMORY;
  if (setjmp(self.exit)) {
    png_free(png, row);
    png_structp reader = png;
    png_infop facts = info;
    png_destroy_read_struct(&reader, &facts, NULL);
    chiasm_image_status status =
        failure(&self, pixels_began ? CHIASM_IMAGE_DAMAGED : CHIASM_IMAGE_MALFORMED);
    if (status == CHIASM_IMAGE_TRUNCATED && pixels_began && options->fill_truncated)
      return CHIASM_IMAGE_OK;
    return status;
  }
  info = png_create_info_struct(png);
  if (info == NULL) png_error(png, "out of memory");
  read_header(&self, png, info);

  size_t width = report->width, height = report->height;
  if (width > capacity / 3 / height) {
    self.allocation_failed = 1;
    png_error(png, "the output buffer is too small");
  }

  pixel_format format = {
      .colour_type = png_get_color_type(png, info), .depth = png_get_bit_depth(png, info)};
  png_colorp palette;
  int entries;
  // Entries that the palette lacks are black, as in Pillow.
  if (png_get_PLTE(png, info, &palette, &entries))
    for (int entry = 0; entry < entries && entry < 256; entry++) {
      format.palette[entry][0] = palette[entry].red;
      format.palette[entry][1] = palette[entry].green;
      format.palette[entry][2] = palette[entry].blue;
    }
  int interlaced = png_get_interlace_type(png, info) != PNG_INTERLACE_NONE;

  // libpng gives the passes of an interlaced picture as small pictures of their own as long
  // as its own interlace handling stays off, so that one row is all the memory there is.
  png_read_update_info(png, info);
  row = png_malloc(png, png_get_rowbytes(png, info));
  if (options->fill_truncated) {
    // Missing pixels are what a zero sample stands for. Small blocks, so that the last bytes
    // of the file reach the decompressor.
    memset(row, 0, png_get_rowbytes(png, info));
    for (size_t y = 0; y < height; y++) row_to_rgb(&format, row, width, rgb + 3 * width * y, 1);
    png_set_compression_buffer_size(png, 1);
  }
  pixels_began = 1;
  if (!interlaced) {
    for (size_t y = 0; y < height; y++) {
      png_read_row(png, row, NULL);
      row_to_rgb(&format, row, width, rgb + 3 * width * y, 1);
      report->rows_read = (uint32_t)(y + 1);
    }
  } else {
    for (int pass = 0; pass < PNG_INTERLACE_ADAM7_PASSES; pass++) {
      size_t columns = PNG_PASS_COLS(width, pass), rows = PNG_PASS_ROWS(height, pass);
      if (columns == 0) continue;
      for (size_t r = 0; r < rows; r++) {
        size_t y = PNG_ROW_FROM_PASS_ROW(r, pass);
        png_read_row(png, row, NULL);
        row_to_rgb(
            &format, row, columns, rgb + 3 * (width * y + PNG_PASS_START_COL(pass)),
            (size_t)1 << PNG_PASS_COL_SHIFT(pass));
        // Every second row is complete before the last pass, which brings the others.
        if (pass == PNG_INTERLACE_ADAM7_PASSES - 1) report->rows_read = (uint32_t)(y + 1);
      }
    }
    report->rows_read = (uint32_t)height;
  }
  png_free(png, row);
  png_structp reader = png;
  png_infop facts = info;
  png_destroy_read_struct(&reader, &facts, NULL);
  return CHIASM_IMAGE_OK;
}
