"""Image files as users have them: unusual ones with what they must decode to, and damaged ones.

A maker writes one file. To cover another kind, add a function under one of the two decorators.
"""

import io
import os
import socket
import struct
import tempfile
import zlib
from pathlib import Path

import numpy as np
from PIL import Image

SIZE = (48, 32)
UNUSUAL: dict[str, tuple] = {}
DAMAGED: dict[str, tuple] = {}


def unusual(extension, tolerance=0):
    """Register a maker that returns the RGB pixels its file must decode to."""

    def register(make):
        UNUSUAL[make.__name__] = (extension, tolerance, make)
        return make

    return register


def damaged(extension, reason):
    """Register a maker of a file that must be named in an error matching ``reason``."""

    def register(make):
        DAMAGED[make.__name__] = (extension, reason, make)
        return make

    return register


def picture(mode="RGB"):
    """Four coloured quarters with a slope in them, so that a turn or a swapped channel shows."""
    width, height = SIZE
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[: height // 2, : width // 2] = (220, 40, 30)
    pixels[: height // 2, width // 2 :] = (30, 200, 60)
    pixels[height // 2 :, : width // 2] = (40, 60, 210)
    pixels[height // 2 :, width // 2 :] = (230, 220, 40)
    pixels[..., 0] += np.arange(width, dtype=np.uint8)[None] // 3
    return Image.fromarray(pixels).convert(mode)


def rgb(image):
    return np.asarray(image.convert("RGB"))


def encoded(image, kind, **options):
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


# --- unusual, to be decoded right -----------------------------------------------------


@unusual("jpg", tolerance=12)
def plain_jpeg(path):
    picture().save(path, quality=95, subsampling=0)
    return rgb(picture())


@unusual("jfif", tolerance=12)
def jpeg_of_another_extension(path):
    picture().save(path, "JPEG", quality=95, subsampling=0)
    return rgb(picture())


@unusual("pgm")
def pgm(path):
    picture("L").save(path)
    return rgb(picture("L"))


@unusual("jpg", tolerance=12)
def progressive_jpeg(path):
    picture().save(path, quality=95, subsampling=0, progressive=True)
    return rgb(picture())


@unusual("jpg", tolerance=6)
def grey_jpeg(path):
    picture("L").save(path, quality=95)
    return rgb(picture("L"))


@unusual("jpg", tolerance=12)
def cmyk_jpeg(path):
    picture("CMYK").save(path, quality=95)
    return rgb(picture())


def exif_of(orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


def rotated_jpeg(orientation, turn):
    def make(path):
        picture().save(path, quality=95, subsampling=0, exif=exif_of(orientation))
        return rgb(picture().transpose(turn))

    make.__name__ = f"jpeg_of_exif_orientation_{orientation}"
    return unusual("jpg", tolerance=12)(make)


for orientation, turn in (
    (2, Image.Transpose.FLIP_LEFT_RIGHT),
    (3, Image.Transpose.ROTATE_180),
    (4, Image.Transpose.FLIP_TOP_BOTTOM),
    (5, Image.Transpose.TRANSPOSE),
    (6, Image.Transpose.ROTATE_270),
    (7, Image.Transpose.TRANSVERSE),
    (8, Image.Transpose.ROTATE_90),
):
    rotated_jpeg(orientation, turn)


@unusual("jpg", tolerance=12)
def jpeg_of_an_orientation_that_does_not_exist(path):
    picture().save(path, quality=95, subsampling=0, exif=exif_of(9))
    return rgb(picture())


@unusual("jpg", tolerance=12)
def jpeg_with_a_damaged_exif_block(path):
    picture().save(path, quality=95, subsampling=0, dpi=(72, 72), exif=b"Exif\0\0rubbish!")
    return rgb(picture())


@unusual("tif")
def turned_tiff(path):
    picture().save(path, tiffinfo={0x0112: 6})
    return rgb(picture().transpose(Image.Transpose.ROTATE_270))


@unusual("png")
def turned_png(path):
    picture().save(path, exif=exif_of(6))
    return rgb(picture().transpose(Image.Transpose.ROTATE_270))


@unusual("png", tolerance=1)
def turned_png_with_alpha(path):
    picture("RGBA").save(path, exif=exif_of(6))
    return rgb(picture().transpose(Image.Transpose.ROTATE_270))


@unusual("png")
def turned_grey_png_of_16_bits(path):
    Image.fromarray(levels16()).save(path, exif=exif_of(8))
    return np.rot90(scaled16())


@unusual("webp")
def turned_webp_with_alpha(path):
    picture("RGBA").save(path, lossless=True, exif=exif_of(3))
    return rgb(picture().transpose(Image.Transpose.ROTATE_180))


@unusual("jpg", tolerance=12)
def jpeg_with_rubbish_behind(path):
    path.write_bytes(encoded(picture(), "JPEG", quality=95, subsampling=0) + b"rubbish" * 100)
    return rgb(picture())


@unusual("jpg")
def png_named_jpg(path):
    picture().save(path, "PNG")
    return rgb(picture())


@unusual("png")
def palette_png(path):
    image = picture().quantize(16)
    image.save(path)
    return rgb(image)


@unusual("png")
def palette_png_with_a_transparent_colour(path):
    image = Image.new("P", SIZE, 1)
    image.putpalette([0, 0, 0, 200, 10, 20])
    image.paste(0, (0, 0, 24, 32))
    image.save(path, transparency=0)
    expected = np.full((32, 48, 3), (200, 10, 20), np.uint8)
    expected[:, :24] = 255
    return expected


@unusual("png")
def rgb_png_with_a_transparent_colour(path):
    image = Image.new("RGB", SIZE, (9, 8, 7))
    image.paste((200, 10, 20), (0, 0, 24, 32))
    image.save(path, transparency=(9, 8, 7))
    expected = np.full((32, 48, 3), 255, np.uint8)
    expected[:, :24] = (200, 10, 20)
    return expected


@unusual("png", tolerance=1)
def half_transparent_png(path):
    image = picture("RGBA")
    image.putalpha(128)
    image.save(path)
    return (rgb(picture()) * (128 / 255) + 255 * (127 / 255)).round().astype(np.uint8)


@unusual("png", tolerance=1)
def grey_png_with_alpha(path):
    image = Image.merge("LA", (picture("L"), Image.new("L", SIZE, 0)))
    image.save(path)
    return np.full((32, 48, 3), 255, np.uint8)


@unusual("png")
def one_bit_png(path):
    picture("1").save(path)
    return rgb(picture("1"))


def levels16():
    return np.linspace(0, 65535, SIZE[0] * SIZE[1]).astype(np.uint16).reshape(SIZE[::-1])


def scaled16():
    return np.repeat(np.rint(levels16() / 257).astype(np.uint8)[..., None], 3, 2)


@unusual("png")
def grey_png_of_16_bits(path):
    Image.fromarray(levels16()).save(path)
    return scaled16()


@unusual("tiff")
def grey_tiff_of_16_bits(path):
    Image.fromarray(levels16()).save(path)
    return scaled16()


@unusual("png", tolerance=1)
def rgb_png_of_16_bits(path):
    def chunk(name, content):
        body = name + content
        return struct.pack(">I", len(content)) + body + struct.pack(">I", zlib.crc32(body))

    wide = np.asarray(picture()).astype(">u2") * 257
    rows = b"".join(b"\0" + row.tobytes() for row in wide)
    header = struct.pack(">IIBBBBB", *SIZE, 16, 2, 0, 0, 0)
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(rows))
        + chunk(b"IEND", b"")
    )
    return rgb(picture())


@unusual("gif")
def animated_gif(path):
    first = picture().quantize(32)
    first.save(path, save_all=True, append_images=[Image.new("P", SIZE, 3)], duration=50)
    return rgb(first)


@unusual("webp")
def animated_webp(path):
    others = [Image.new("RGB", SIZE)]
    picture().save(path, save_all=True, append_images=others, lossless=True)
    return rgb(picture())


@unusual("tif")
def tiff_of_two_pages(path):
    picture().save(path, save_all=True, append_images=[Image.new("RGB", (5, 5))])
    return rgb(picture())


@unusual("bmp")
def bmp(path):
    picture().save(path)
    return rgb(picture())


@unusual("ppm")
def ppm(path):
    picture().save(path)
    return rgb(picture())


@unusual("png")
def one_pixel(path):
    Image.new("RGB", (1, 1), (1, 2, 3)).save(path)
    return np.array([[[1, 2, 3]]], np.uint8)


# --- damaged, to be named -------------------------------------------------------------


@damaged("jpg", "empty file")
def empty(path):
    path.touch()


@damaged("jpg", "not an image")
def text(path):
    path.write_text("<html>not found</html>")


@damaged("jpg", "truncated")
def jpeg_cut_in_half(path):
    raw = encoded(picture().resize((400, 300)), "JPEG", quality=95)
    path.write_bytes(raw[: len(raw) // 2])


@damaged("jpg", "truncated")
def jpeg_without_its_end_marker(path):
    path.write_bytes(encoded(picture(), "JPEG")[:-2])


@damaged("jpg", "")
def jpeg_of_its_header_alone(path):
    path.write_bytes(encoded(picture(), "JPEG")[:40])


@damaged("png", "")
def png_cut_in_half(path):
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8))
    raw = encoded(noise, "PNG")
    path.write_bytes(raw[: len(raw) // 2])


@damaged("png", "")
def png_with_a_flipped_byte(path):
    raw = bytearray(encoded(picture(), "PNG"))
    raw[raw.index(b"IDAT") + 20] ^= 0xFF
    path.write_bytes(raw)


@damaged("gif", "")
def gif_cut_short(path):
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64), np.uint8))
    path.write_bytes(encoded(noise, "GIF")[:1500])


@damaged("bmp", "truncated")
def bmp_cut_in_half(path):
    raw = encoded(picture(), "BMP")
    path.write_bytes(raw[: len(raw) // 2])


@damaged("webp", "")
def webp_cut_in_half(path):
    raw = encoded(picture(), "WEBP", lossless=True)
    path.write_bytes(raw[: len(raw) // 2])


@damaged("tif", "")
def tiff_cut_in_half(path):
    raw = encoded(picture(), "TIFF", compression="tiff_lzw")
    path.write_bytes(raw[: len(raw) // 2])


@damaged("png", r"\d+x\d+ pixels, the limit is|exceeds limit")
def enormous(path):
    # Its header says 60,000 x 60,000; the bytes behind do not matter.
    raw = bytearray(encoded(picture(), "PNG"))
    raw[16:24] = struct.pack(">II", 60_000, 60_000)
    raw[29:33] = struct.pack(">I", zlib.crc32(raw[12:29]))
    path.write_bytes(raw)


@damaged("tiff", "floating-point")
def floating_point_tiff(path):
    Image.fromarray(np.linspace(0, 1, 64, dtype=np.float32).reshape(8, 8)).save(path)


@damaged("tiff", "32-bit grey")
def tiff_of_32_bits(path):
    Image.fromarray(np.full((8, 8), 1_000_000, np.int32)).save(path)


@damaged("jpg", "no such file")
def broken_link(path):
    Path(path).symlink_to(path.with_name("gone"))


@damaged("jpg", "is a directory")
def folder(path):
    path.mkdir()


@damaged("jpg", "too many levels of symbolic links")
def link_to_itself(path):
    Path(path).symlink_to(path)


@damaged("jpg", "not a file but a device, pipe or socket")
def pipe(path):
    os.mkfifo(path)


@damaged("jpg", "not a file but a device, pipe or socket")
def socket_(path):
    # Paths of sockets are short: bound beside, then moved.
    with socket.socket(socket.AF_UNIX) as bound, tempfile.TemporaryDirectory() as folder_:
        bound.bind(f"{folder_}/s")
        os.rename(f"{folder_}/s", path)


@damaged("jpg", "not a file but a device, pipe or socket")
def link_to_a_device(path):
    Path(path).symlink_to("/dev/zero")
