"""Ed25519 as signatures of bundles use it: the reference of RFC 8032, and keys and signatures that are refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgeformer_runtime.bundle.bundle import Bundle
from edgeformer_runtime.bundle.signature import DOMAIN, SIGNATURE_NAME, check, public_pem
from edgeformer_runtime.errors import BundleError, InputError

pytest.importorskip("cryptography")

from cryptography.hazmat.primitives.asymmetric import ed25519

SECRET = ed25519.Ed25519PrivateKey.generate()
PUBLIC: bytes = SECRET.public_key().public_bytes_raw()


def test_reference_signature_of_rfc_8032() -> None:
    """The domain and the manifest are signed as they are: test 2 of section 7.1 with its message behind the domain."""
    key = ed25519.Ed25519PrivateKey.from_private_bytes(
        bytes.fromhex("4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb")
    )
    public = key.public_key().public_bytes_raw()
    assert public.hex() == "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c"
    assert check(b"\x72", key.sign(DOMAIN + b"\x72"), (public,)).name == "valid"
    of_the_bare_message = bytes.fromhex(
        "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da"
        "085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00"
    )
    with pytest.raises(BundleError, match="not a signature of this manifest"):
        check(b"\x72", of_the_bare_message, (public,))


# RFC 8032 gives the curve; the eight points whose order divides 8 and their encodings are those of "Taming the many
# EdDSAs" (Chalkias, Garillot, Nikolaenko), table 1, and all others that are not below the prime.
SMALL_ORDER = [
    "0100000000000000000000000000000000000000000000000000000000000000",
    "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "0000000000000000000000000000000000000000000000000000000000000080",
    "0000000000000000000000000000000000000000000000000000000000000000",
    "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
    "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac03fa",
    "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
    "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc85",
    "0100000000000000000000000000000000000000000000000000000000000080",
    "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
    "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
    "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
    "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    *(f"{low:02x}{'ff' * 30}{high}" for low in range(0xEF, 0x100) for high in ("7f", "ff")),
]


@pytest.mark.parametrize("point", SMALL_ORDER)
def test_keys_for_which_everybody_can_sign(tiny: Path, tmp_path: Path, point: str) -> None:
    key = bytes.fromhex(point)
    (tmp_path / "weak.pub").write_bytes(public_pem(key))
    (tiny / SIGNATURE_NAME).write_bytes(key + bytes(32))
    for given in (key, tmp_path / "weak.pub", [PUBLIC, key]):
        with pytest.raises(InputError, match="a key of small order"):
            Bundle.open(tiny, given)
    with pytest.raises(BundleError, match="not a signature"):
        check(b"", bytes(32) + bytes(32), (key,))


def test_a_forgery_that_fits_a_key_of_small_order() -> None:
    """The reason: with the identity as key and R = S B with S = 0, the equation holds for half and more of messages."""
    identity = bytes.fromhex(SMALL_ORDER[0])
    forged = identity + bytes(32)
    ed25519.Ed25519PublicKey.from_public_bytes(identity).verify(forged, b"anything")
    with pytest.raises(BundleError, match="not a signature"):
        check(b"anything", forged, (identity,))


def test_a_signature_whose_s_is_not_reduced() -> None:
    order = 2**252 + 27742317777372353535851937790883648493
    good = SECRET.sign(DOMAIN + b"x")
    again = good[:32] + (int.from_bytes(good[32:], "little") + order).to_bytes(32, "little")
    assert check(b"x", good, (PUBLIC,)).name == "valid"
    with pytest.raises(BundleError, match="not a signature"):
        check(b"x", again, (PUBLIC,))
