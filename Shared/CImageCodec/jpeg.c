#include "CImageCodec.h"

#include <setjmp.h>
#include <stdio.h>
#include <string.h>

#include <jpeglib.h>

#include <jerror.h>

typedef struct {
  struct jpeg_error_mgr errors;  // First, so that a pointer to it is a pointer to this.
  struct jpeg_progress_mgr progress;
  struct jpeg_decompress_struct info;
  jmp_buf exit;
  chiasm_image_status status;
  chiasm_image_report *report;
  uint32_t max_scans;
  int fill_truncated;
  int ended_early;
  int multiple_scans;
  int rows_began;
} decoder;

static decoder *decoder_of(j_common_ptr info) { return (decoder *)info->err; }

static void leave(decoder *self, chiasm_image_status status) {
  self->status = status;
  // Of several scans, no row is final before the last.
  if (self->rows_began && !self->multiple_scans)
    self->report->rows_read = self->info.output_scanline;
  longjmp(self->exit, 1);
}

static void on_error(j_common_ptr info) {
  decoder *self = decoder_of(info);
  char text[JMSG_LENGTH_MAX];
  self->errors.format_message(info, text);
  snprintf(self->report->message, sizeof self->report->message, "%s", text);
  switch (self->errors.msg_code) {
    case JERR_OUT_OF_MEMORY:
    case JERR_NO_BACKING_STORE:
      leave(self, CHIASM_IMAGE_OUT_OF_MEMORY);
      break;
    case JERR_ARITH_NOTIMPL:
    case JERR_BAD_PRECISION:
    case JERR_CONVERSION_NOTIMPL:
    case JERR_NOT_COMPILED:
    case JERR_SOF_UNSUPPORTED:
      leave(self, CHIASM_IMAGE_UNSUPPORTED);
      break;
    default:
      leave(self, self->ended_early ? CHIASM_IMAGE_TRUNCATED : CHIASM_IMAGE_MALFORMED);
  }
}

// Warnings are where libjpeg goes on with invented coefficients. Those that say so end the
// decoding; those about harmless oddities do not.
static void on_message(j_common_ptr info, int level) {
  if (level >= 0) return;
  decoder *self = decoder_of(info);
  self->errors.num_warnings++;
  int missing = 0;
  switch (self->errors.msg_code) {
    case JWRN_JPEG_EOF:
      self->ended_early = 1;
      // The bit reader looks ahead, so a single scan that lacks only its end marker also
      // comes here. In the other case JWRN_HIT_MARKER follows, but not from the arithmetic
      // decoder, for which the missing bytes are zeros that the encoder left out.
      missing = self->multiple_scans || self->info.arith_code;
      break;
    case JWRN_HIT_MARKER:
    case JWRN_HUFF_BAD_CODE:
    case JWRN_ARITH_BAD_CODE:
    case JWRN_MUST_RESYNC:
      missing = 1;
      break;
    default:
      break;
  }
  if (!missing || self->fill_truncated) return;
  char text[JMSG_LENGTH_MAX];
  self->errors.format_message(info, text);
  snprintf(self->report->message, sizeof self->report->message, "%s", text);
  leave(self, self->ended_early ? CHIASM_IMAGE_TRUNCATED : CHIASM_IMAGE_DAMAGED);
}

static void on_output(j_common_ptr info) { (void)info; }

static void on_progress(j_common_ptr info) {
  decoder *self = decoder_of(info);
  if (self->info.input_scan_number <= (int)self->max_scans) return;
  snprintf(
      self->report->message, sizeof self->report->message, "more than %u scans",
      self->max_scans);
  leave(self, CHIASM_IMAGE_TOO_MANY_SCANS);
}

static void begin(decoder *self, chiasm_image_report *report) {
  memset(self, 0, sizeof *self);
  memset(report, 0, sizeof *report);
  self->report = report;
  self->max_scans = UINT32_MAX;
  self->info.err = jpeg_std_error(&self->errors);
  self->errors.error_exit = on_error;
  self->errors.emit_message = on_message;
  self->errors.output_message = on_output;
}

static void read_header(decoder *self, const void *bytes, size_t count) {
  jpeg_mem_src(&self->info, bytes, (unsigned long)count);
  jpeg_read_header(&self->info, TRUE);
  self->report->width = self->info.image_width;
  self->report->height = self->info.image_height;
  self->multiple_scans = jpeg_has_multiple_scans(&self->info);
  int components = self->info.num_components;
  if (components != 1 && components != 3 && components != 4) {
    snprintf(
        self->report->message, sizeof self->report->message, "%d colour components",
        components);
    leave(self, CHIASM_IMAGE_UNSUPPORTED);
  }
  // libjpeg-turbo 2 refuses other depths itself; version 3 reads them by other functions.
  if (self->info.data_precision != 8) {
    snprintf(
        self->report->message, sizeof self->report->message, "%d bits a sample",
        self->info.data_precision);
    leave(self, CHIASM_IMAGE_UNSUPPORTED);
  }
}

chiasm_image_status chiasm_jpeg_header(
    const void *bytes, size_t count, chiasm_image_report *report) {
  decoder self;
  begin(&self, report);
  if (setjmp(self.exit)) {
    jpeg_destroy_decompress(&self.info);
    return self.status;
  }
  jpeg_create_decompress(&self.info);
  read_header(&self, bytes, count);
  jpeg_destroy_decompress(&self.info);
  return CHIASM_IMAGE_OK;
}

// a · b / 255, rounded, as Pillow computes it.
static inline int multiply255(int a, int b) {
  int product = a * b + 128;
  return ((product >> 8) + product) >> 8;
}

static inline uint8_t clip(int value) { return value < 0 ? 0 : value > 255 ? 255 : value; }

// Pillow takes every four-component JPEG for an inverted (Adobe) one, with or without the
// Adobe marker, and converts without a colour profile.
static void inverted_cmyk_to_rgb(const uint8_t *cmyk, uint8_t *rgb, size_t width) {
  for (size_t x = 0; x < width; x++, cmyk += 4, rgb += 3) {
    int white = cmyk[3];
    for (int channel = 0; channel < 3; channel++)
      rgb[channel] = clip(white - multiply255(255 - cmyk[channel], white));
  }
}

chiasm_image_status chiasm_jpeg_decode(
    const void *bytes, size_t count, const chiasm_image_options *options, uint8_t *rgb,
    size_t capacity, chiasm_image_report *report) {
  decoder self;
  begin(&self, report);
  self.max_scans = options->max_scans;
  self.fill_truncated = options->fill_truncated;
  if (setjmp(self.exit)) {
    jpeg_destroy_decompress(&self.info);
    return self.status;
  }
  jpeg_create_decompress(&self.info);
  self.info.mem->max_memory_to_use = (long)options->max_memory;
  self.progress.progress_monitor = on_progress;
  self.info.progress = &self.progress;
  read_header(&self, bytes, count);

  size_t width = self.info.image_width, height = self.info.image_height;
  if (width * height > capacity / 3) {
    snprintf(report->message, sizeof report->message, "the output buffer is too small");
    leave(&self, CHIASM_IMAGE_OUT_OF_MEMORY);
  }

  // Pillow's settings are libjpeg's own: accurate integer DCT, fancy upsampling, block
  // smoothing. Named here so that a library built with other defaults gives the same bytes.
  int four = self.info.num_components == 4;
  self.info.out_color_space = four ? JCS_CMYK : JCS_RGB;
  self.info.dct_method = JDCT_ISLOW;
  self.info.do_fancy_upsampling = TRUE;
  self.info.do_block_smoothing = TRUE;
  jpeg_start_decompress(&self.info);
  self.rows_began = 1;

  JSAMPARRAY line = NULL;
  if (four)
    line = self.info.mem->alloc_sarray(
        (j_common_ptr)&self.info, JPOOL_IMAGE, (JDIMENSION)(4 * width), 1);
  while (self.info.output_scanline < height) {
    uint8_t *row = rgb + 3 * width * self.info.output_scanline;
    JSAMPROW output = four ? line[0] : row;
    // A source in memory never makes libjpeg wait, so no line means no progress.
    if (jpeg_read_scanlines(&self.info, &output, 1) != 1) leave(&self, CHIASM_IMAGE_DAMAGED);
    if (four) inverted_cmyk_to_rgb(line[0], row, width);
  }
  report->rows_read = (uint32_t)height;
  // The picture is whole. What follows it is not read, so it cannot turn it into an error.
  jpeg_destroy_decompress(&self.info);
  return CHIASM_IMAGE_OK;
}
