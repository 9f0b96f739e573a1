"""A fitted model as JSON, arrays, tensors and parts of scikit-learn; and back.

One rule for everything: plain values are JSON, numbers of arrays and tensors stand in files of their own under a name,
an object is the name of its class and its attributes, and is written once however often it is referred to. Reading
makes an empty object of the named class, and gives it its attributes; no constructor and no function is called.
"""

from collections.abc import Callable, Mapping
from typing import Any

from sklearn.base import BaseEstimator
from torch import nn

from mmdls._secrets import without_secrets
from mmdls.parts import Part
from mmdls.persistence._networks import decode_torch, encode_module, encode_torch, fill_module
from mmdls.persistence._sklearn import is_of_sklearn, read_part, write_part
from mmdls.persistence._sources import source_hash
from mmdls.persistence._studies import decode_study, encode_study
from mmdls.persistence._types import class_named, class_reference, function_named, function_reference
from mmdls.persistence._values import decode_value, encode_value

__all__ = ["PLACES", "Reader", "Writer"]

# Parameters that name a place of one machine. Its contents are read or written later, so a file must not choose it.
PLACES = frozenset(("memory", "storage", "checkpoint"))


class Writer:
    """Writes a model.

    Attributes
    ----------
    objects : list of dict
        Class and attributes of every object, the model first.
    arrays, tensors : dict
        Numbers by name.
    parts : dict of str to bytes
        Parts of scikit-learn by name.
    left_out : list of str
        Parameters that are not saved, with the reason.
    code : dict of str to str
        Hashes of the code of registered classes from elsewhere, by name; None where Python cannot show it.
    """

    def __init__(self) -> None:
        self.objects: list[Any] = []
        self.arrays: dict[str, Any] = {}
        self.tensors: dict[str, Any] = {}
        self.parts: dict[str, bytes] = {}
        self.left_out: list[str] = []
        self.code: dict[str, str | None] = {}
        self._known: dict[int, tuple[Any, Any]] = {}

    def packages(self) -> list[str]:
        """Packages that are needed besides those of every model, by the names of their classes."""
        found = {each["class"]["name"].partition(".")[0] for each in self.objects if "registered" in each["class"]}
        return sorted(name for name in found if ":" not in name)

    def node(self, value: Any, path: str) -> Any:
        """JSON of a value that stands somewhere in the model; TypeError, with the place, if it cannot be saved."""
        known = self._known.get(id(value))
        if known is not None:
            return known[1]
        for encode in (
            lambda: encode_value(value, path, self.node, self.arrays),
            lambda: encode_torch(value, path, self.node, self.tensors),
            lambda: encode_study(value, path, self.node),
        ):
            found = encode()
            if found is not NotImplemented:
                if not isinstance(value, bool | int | float | str | list | tuple | dict | None):
                    self._known[id(value)] = value, found
                return found
        if isinstance(value, type):
            return {"class": self._reference(value, path)}
        if callable(value) and hasattr(value, "__name__"):
            return {"function": function_reference(value, path)}
        if is_of_sklearn(value) and (data := write_part(value)) is not None:
            name = f"{len(self.parts):03d}"
            self.parts[name] = data
            self._known[id(value)] = value, {"part": name}
            return {"part": name}
        return self._object(value, path)

    def _reference(self, cls: type, path: str) -> dict[str, Any]:
        reference = class_reference(cls, path)
        if "registered" in reference and reference["name"] not in self.code:
            self.code[reference["name"]] = source_hash(cls)
        return reference

    def _object(self, value: Any, path: str) -> Any:
        reference = self._reference(type(value), path)
        if not hasattr(value, "__dict__"):
            raise TypeError(f"{path} is a {type(value).__name__}, whose contents cannot be seen; it cannot be saved.")
        place = len(self.objects)
        self.objects.append({"class": reference})
        self._known[id(value)] = value, {"object": place}
        state = encode_module(value, path) if isinstance(value, nn.Module) else dict(vars(value))
        if isinstance(value, BaseEstimator) and not isinstance(value, Part):
            state = {name: self._kept(each, f"{path}.{name}", name) for name, each in state.items()}
        items = [[name, self.node(each, f"{path}.{name}")] for name, each in state.items()]
        self.objects[place]["attributes"] = items
        return {"object": place}

    def _kept(self, value: Any, path: str, name: str) -> Any:
        if name not in PLACES or value is None:
            return value
        shown = without_secrets(str(value)) if isinstance(value, str) else type(value).__name__
        self.left_out.append(f"{path} ({shown}), a place of this machine")
        return None


class Reader:
    """Reads what a :class:`Writer` wrote.

    Parameters
    ----------
    objects : list of dict
    arrays, tensors : mapping of str to array or Tensor
    parts : mapping of str to bytes

    Attributes
    ----------
    classes : dict of str to type
        Registered classes from elsewhere, by the names of the file.
    """

    def __init__(
        self, objects: list[Any], arrays: Mapping[str, Any], tensors: Mapping[str, Any], parts: Mapping[str, bytes]
    ) -> None:
        self.objects, self.arrays, self.tensors, self.parts = objects, dict(arrays), dict(tensors), parts
        self.classes: dict[str, type] = {}
        self._made: dict[int, Any] = {}
        self._shared: dict[tuple[str, str], Any] = {}

    def value(self, node: Any) -> Any:
        """The value of JSON; ValueError if it is none that a Writer writes."""
        if node is None or isinstance(node, bool | int | float | str):
            return node
        if isinstance(node, list):
            return [self.value(each) for each in node]
        ((tag, content),) = node.items()
        if tag == "object":
            return self._object(content)
        if tag == "class":
            return self._class(content)
        if tag == "function":
            return function_named(content)
        if tag == "part":
            return self._once(("part", content), lambda: read_part(self.parts[content]))
        if tag in ("tensor", "array"):
            numbers = content.get("numbers") if isinstance(content, dict) else None
            if numbers is not None:
                return self._once((tag, repr(content)), lambda: self._plain(tag, content))
        return self._plain(tag, content)

    def _class(self, reference: Any) -> type:
        found = class_named(reference)
        if "registered" in reference:
            self.classes[reference["name"]] = found
        return found

    def _plain(self, tag: str, content: Any) -> Any:
        for decode in (
            lambda: decode_value(tag, content, self.value, self.arrays),
            lambda: decode_torch(tag, content, self.value, self.tensors),
            lambda: decode_study(tag, content, self.value),
        ):
            found = decode()
            if found is not NotImplemented:
                return found
        raise ValueError(f"the file has a value of the kind {tag!r}, which is unknown.")

    def _once(self, key: tuple[str, str], make: Callable[[], Any]) -> Any:
        """What several places refer to is one object, as it was."""
        if key not in self._shared:
            self._shared[key] = make()
        return self._shared[key]

    def _object(self, place: Any) -> Any:
        if type(place) is not int or not 0 <= place < len(self.objects):
            raise ValueError(f"the file refers to object {place!r}, which it does not have.")
        if place in self._made:
            return self._made[place]
        cls: Any = self._class(self.objects[place]["class"])
        made = self._made[place] = object.__new__(cls)
        state = {name: self.value(each) for name, each in self.objects[place]["attributes"]}
        if not all(isinstance(name, str) for name in state):
            raise ValueError("the file has an object whose attributes have no names.")
        if isinstance(made, BaseEstimator) and not isinstance(made, Part):
            if named := [name for name in PLACES & state.keys() if state[name] is not None]:
                raise ValueError(
                    f"the file sets {named} of {cls.__name__}, places of a machine that it must not choose."
                )
        if isinstance(made, nn.Module):
            fill_module(made, state)
        else:
            vars(made).update(state)
        return made
