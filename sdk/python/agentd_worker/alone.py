"""What answers where there is no agentd: the same answers, from memory, kept by nobody."""

from __future__ import annotations

from typing import Any

Body = dict[str, Any]


class Alone:
    def __init__(self) -> None:
        self.effects: dict[str, Any] = {}
        self.items: dict[tuple[str, str], Body] = {}
        self.beating: dict[str, int] = {}
        self.welcome: Body = {}

    def start(self) -> None:
        pass

    def redial(self) -> None:
        pass

    def tell(self, body: Body, forget: str | None = None) -> None:
        self.ask(body, forget)

    async def ask_async(self, body: Body, forget: str | None = None, heard: Any = None) -> Body:
        return self.ask(body, forget, heard)

    def ask(self, body: Body, forget: str | None = None, heard: Any = None) -> Body:
        answer = self.answer(body)
        if heard is not None:
            heard(answer)
        return answer

    def answer(self, body: Body) -> Body:
        kind = body["t"]
        if kind == "task.begin":
            return {"task": body["task"], "fence": 1, "attempt": 1}
        if kind in ("effect.begin", "effect.end"):
            key = f"{body['task']}:{body['key']}"
            if body.get("ok"):
                self.effects[key] = body.get("result")
            return {"state": "done", "result": self.effects[key]} if key in self.effects else {"state": "new", "key": key}
        if kind in ("task.end", "task.yield"):
            for key in [key for key in self.effects if key.startswith(body["task"] + ":")]:
                del self.effects[key]
        return self.kept(body) if kind.startswith("kv.") else {}

    def kept(self, body: Body) -> Body:
        ns, kind = body["ns"], body["t"]
        if kind == "kv.put":
            return {"put": [self.put(ns, item) for item in body["items"]]}
        if kind == "kv.get":
            item = self.items.get((ns, body["key"]))
            return {"found": item is not None, **(item or {})}
        prefix = body.get("prefix")
        keys = sorted(k for n, k in self.items if n == ns and (k.startswith(prefix or "") if "key" not in body else k == body["key"]))
        if kind == "kv.del":
            for key in keys:
                del self.items[ns, key]
            return {"deleted": len(keys)}
        after, down = body.get("after"), body.get("reverse", False)
        keys = [k for k in keys if after is None or (k < after if down else k > after)]
        keys = (keys[::-1] if down else keys)
        limit = body.get("limit") or 100
        return {"items": [{"key": k, **self.items[ns, k]} for k in keys[:limit]], "more": len(keys) > limit}

    def put(self, ns: str, item: Body) -> bool:
        value = {form: item[form] for form in ("data", "json") if form in item}
        if item.get("if_absent") and (ns, item["key"]) in self.items:
            return self.items[ns, item["key"]] == value
        self.items[ns, item["key"]] = value
        return True
