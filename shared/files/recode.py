"""Rows in another encoding than their file: two systems wrote into one export, or its beginning was plain ASCII."""

# One odd byte among many good letters is a broken letter, not another encoding.
_ENOUGH_UTF8 = 3


def looks_like_utf8(data: bytes) -> bool:
    """Whether bytes that are no UTF-8 hold so many letters in it that they are meant to be."""
    valid = len(data.decode("utf-8", "ignore").encode()) - sum(byte < 128 for byte in data)
    invalid = sum(byte >= 128 for byte in data) - valid
    return valid > _ENOUGH_UTF8 * invalid


def recode_row(raw: bytes, cells: list[str], encoding: str) -> list[str] | None:
    """The cells of a row that is no UTF-8, in another encoding; None where it is none of that either."""
    if looks_like_utf8(raw):
        return None
    try:
        return [cell.encode("utf-8", "surrogateescape").decode(encoding) for cell in cells]
    except UnicodeDecodeError:
        return None


def recode_cell(cell: str, encoding: str | None) -> str:
    """A cell as recode_row leaves it; as it is where nothing is wrong with it."""
    if encoding is None or cell.isascii():
        return cell
    try:
        cell.encode()
    except UnicodeEncodeError:
        return cell.encode("utf-8", "surrogateescape").decode(encoding, "replace")
    return cell
