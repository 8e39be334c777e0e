"""Vision transformers of timm, small and base with patches of 16 pixels.

Dosovitskiy et al. 2021; graph and names as timm's `vit_small_patch16_224` and
`vit_base_patch16_224`. They have LayerNorm alone, so no BatchNorm policy. A map is the
tokens, (batch, 1 + rows * columns, c), the class token first. Positions are learned for
14 x 14 patches; for images of another size they are interpolated in every pass.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from ftjax.backbones.backbone import Backbone, Layer, Unit, named_layers
from ftjax.backbones.layers import Conv, empty, layer_norm
from ftjax.backbones.preprocessing import Preprocessing
from ftjax.kernels.normalization import at_least_float32

PATCH, SIDE = 16, 14  # pixels of a patch, and patches that positions are learned for
# timm.data.IMAGENET_INCEPTION_MEAN and _STD.
PREPROCESSING = Preprocessing(mean=(127.5,) * 3, std=(127.5,) * 3)
# Blocks, channels and attention heads.
MEMBERS = {"vit_small": (12, 384, 6), "vit_base": (12, 768, 12)}


class Embedding(nn.Module):
    """Learned numbers that are added or put before, params embedding `shape`."""

    shape: tuple[int, ...]

    @nn.compact
    def __call__(self):
        return self.param("embedding", nn.initializers.normal(0.02), self.shape)


class Patches(nn.Module):
    """Images become tokens: patches, the class token before them, positions."""

    features: int
    preprocessing: Preprocessing

    @nn.compact
    def __call__(self, x, *, batch_norm=(), momentum=None, residual_scale=None):
        x = self.preprocessing(x)
        x = Conv(self.features, PATCH, PATCH, "VALID", name="proj")(x)
        batch, rows, columns, _ = x.shape
        first = Embedding((1, 1, self.features), name="cls")()
        first = jnp.broadcast_to(first, (batch, 1, self.features)).astype(x.dtype)
        x = jnp.concatenate([first, x.reshape(batch, -1, self.features)], 1)
        shape = 1, 1 + SIDE * SIDE, self.features
        positions = Embedding(shape, name="pos")()
        return x + positions_for(positions, rows, columns).astype(x.dtype)


def positions_for(positions: jax.Array, rows: int, columns: int) -> jax.Array:
    """Positions (1, 1 + 14 * 14, c) for so many patches, by cubic interpolation."""
    if (rows, columns) == (SIDE, SIDE):
        return positions
    first, grid = positions[:, :1], positions[:, 1:]
    channels = positions.shape[-1]
    grid = grid.reshape(1, SIDE, SIDE, channels)
    grid = jax.image.resize(grid, (1, rows, columns, channels), "cubic")
    return jnp.concatenate([first, grid.reshape(1, -1, channels)], 1)


class Block(nn.Module):
    """Attention and two dense layers, each behind LayerNorm, around shortcuts.

    Attributes:
        features: channels of a token.
        heads: of the attention.
    """

    features: int
    heads: int

    @nn.compact
    def __call__(self, x, *, batch_norm=(), momentum=None, residual_scale=None):
        def dense(x, name, width):
            layer = nn.Dense(width, dtype=x.dtype, kernel_init=empty, name=name)
            return layer(x)

        batch, tokens, channels = x.shape
        qkv = dense(layer_norm(x, "norm1"), "qkv", 3 * channels)
        split = batch, tokens, 3, self.heads, channels // self.heads
        query, key, value = jnp.moveaxis(qkv.reshape(split), 2, 0)
        attended = jax.nn.dot_product_attention(query, key, value)
        x = x + dense(attended.reshape(x.shape), "proj", channels)
        hidden = dense(layer_norm(x, "norm2"), "fc1", 4 * channels)
        return x + dense(jax.nn.gelu(hidden, approximate=False), "fc2", channels)


class ClassToken(nn.Module):
    """LayerNorm of the class token: (batch, c), float32."""

    @nn.compact
    def __call__(self, x, *, batch_norm=(), momentum=None, residual_scale=None):
        return layer_norm(x[:, 0].astype(at_least_float32(x)), "norm")


KINDS = {"norm": "LayerNormalization", "norm1": "LayerNormalization"}
KINDS |= {"norm2": "LayerNormalization", "proj": "Dense", "qkv": "Dense"}
KINDS |= {"fc1": "Dense", "fc2": "Dense", "cls": "ClassToken", "pos": "Positions"}
BLOCK = "norm1 qkv attention proj add1 norm2 fc1 gelu fc2 add2"
OTHERS = {"attention": "Attention", "gelu": "Activation", "add1": "Add", "add2": "Add"}


def vit(name: str) -> Backbone:
    """A vision transformer without its classifier: a unit for each block."""
    blocks, features, heads = MEMBERS[name]
    patches = (
        Layer("patches_proj", "Conv2D", "proj"),
        Layer("patches_cls", KINDS["cls"], "cls"),
        Layer("patches_pos", KINDS["pos"], "pos"),
    )
    units = [Unit("patches", Patches(features, PREPROCESSING), patches)]
    for number in range(1, blocks + 1):
        layers = named_layers(f"block{number}", BLOCK, KINDS, OTHERS)
        units.append(Unit(f"block{number}", Block(features, heads), layers))
    units.append(
        Unit("norm", ClassToken(), named_layers("norm", "norm", KINDS, OTHERS))
    )
    return Backbone(
        name,
        tuple(units),
        smallest_size=32,
        native_size=224,
        source="timm",
        flat=True,
    )
