"""Members, calls and optional chains: links that are applied to a value, one after the other."""

from __future__ import annotations

from rhythm.language import nodes
from rhythm.language.ir import Node
from rhythm.language.lower_base import CONSTANTS, DEPTH_KEPT, SPINE_RUN, Lowering, spine_child
from rhythm.language.lower_texts import PresentMember, text_of


class ChainLowering(Lowering):
    """Chains of one function."""

    def chain(self, node: nodes.Expression, *, delete: bool = False) -> Node:
        links: list[nodes.Expression] = [node]
        while isinstance(links[-1], nodes.MemberExpression | nodes.CallExpression | nodes.ChainExpression):
            child = spine_child(links[-1])
            assert isinstance(child, nodes.Expression), "these have a spine"
            links.append(child)
        base = links.pop()
        links.reverse()
        return self.follow(links, self.expression(base), base, delete)

    def follow(self, links: list[nodes.Expression], value: Node, value_node: nodes.Node, delete: bool) -> Node:
        """Applies members and calls to a value, one after the other."""
        index, run = 0, DEPTH_KEPT
        while index < len(links):
            link = links[index]
            following = links[index + 1] if index + 1 < len(links) else None
            if isinstance(link, nodes.ChainExpression):
                index += 1
                continue
            calls_member = isinstance(link, nodes.MemberExpression) and isinstance(following, nodes.CallExpression)
            optional_call = calls_member and isinstance(following, nodes.CallExpression) and following.optional
            if getattr(link, "optional", False) or optional_call:
                # Up to where the chain's short circuit ends; inside another one's, up to its end.
                ends = (i for i in range(index, len(links)) if isinstance(links[i], nodes.ChainExpression))
                end = next(ends, len(links))
                end_node = links[min(end, len(links) - 1)]
                inside_delete = delete and end >= len(links) - 1
                value = self.optional(links[index:end], value, value_node, end_node, inside_delete)
                value_node, index = end_node, end + 1
                if inside_delete:
                    return value
                continue
            if isinstance(link, nodes.MemberExpression):
                if calls_member:
                    assert isinstance(following, nodes.CallExpression), "tested above"
                    value = self.call_member(link, following, value, value_node)
                    value_node, index = following, index + 2
                else:
                    value = self.member_of(link, value, value_node, delete and index == len(links) - 1)
                    value_node, index = link, index + 1
            else:
                assert isinstance(link, nodes.CallExpression), "the other links are handled"
                if self.last_needing(link.arguments) >= 0 or self.is_deep(link):
                    value = self.spill(value, value_node)
                arguments = self.arguments(link.arguments, link)
                value = ["call", value, text_of(link.callee), arguments, self.position(link)]
                value_node, index = link, index + 1
            run += 1
            if self.is_deep(value_node) and run >= SPINE_RUN and index < len(links):
                value, run = self.spill(value, value_node), 0
        return value

    def member_of(self, link: nodes.MemberExpression, owner: Node, owner_node: nodes.Node, delete: bool) -> Node:
        if not link.computed:
            return self.get_property(link, owner, None, delete=delete)
        if self.needs_statements(link.property):
            owner = self.spill(owner, owner_node)
        key = self.expression(link.property)
        if self.is_deep(link):
            key = self.spill(key, link.property)
        return self.get_property(link, owner, key, delete=delete)

    def call_member(
        self,
        link: nodes.MemberExpression,
        call: nodes.CallExpression,
        owner: Node,
        owner_node: nodes.Node,
        key: Node | None = None,
    ) -> Node:
        """A call of a method; ``key`` is the computed key when it has been evaluated already."""
        pending = self.last_needing(call.arguments) >= 0 or self.is_deep(call)
        if link.computed:
            if pending or (key is None and self.needs_statements(link.property)):
                owner = self.spill(owner, owner_node)
            if key is None:
                key = self.expression(link.property)
                if pending:
                    held = self.spill(key, link.property)
                    key = self.spill_always(self.key_of(owner, held), link.property)
        elif pending:
            owner = self.spill(owner, owner_node)
        if pending and owner[0] != "global":
            return self.call_held(link, call, owner, key)
        return self.call_property(link, owner, key, self.arguments(call.arguments, call))

    def call_held(
        self, link: nodes.MemberExpression, call: nodes.CallExpression, owner: Node, key: Node | None
    ) -> Node:
        """A call whose method is looked up before arguments that need statements, which may replace the method.

        A method of the program is called as it was looked up. A builtin one needs its receiver, and cannot be
        replaced but by hiding it, so whatever is still the same is called as a method.
        """
        text, position = text_of(link), self.position(link.property)
        method = self.spill_always(self.get_property(link, owner, key), link)
        arguments = [
            ["spread", self.spill(argument[1], node), argument[2]]
            if argument[0] == "spread"
            else self.spill(argument, node)
            for argument, node in zip(self.arguments(call.arguments, call), call.arguments, strict=True)
        ]
        called = self.call_property(link, owner, key, arguments)
        same = ["binary", "===", self.get_property(link, owner, key), method]
        return ["conditional", same, called, ["call", method, text, arguments, position]]

    def call_property(self, link: nodes.MemberExpression, owner: Node, key: Node | None, arguments: list[Node]) -> Node:
        text, position = text_of(link), self.position(link.property)
        if key is not None:
            return ["call_index", owner, key, text, arguments, position]
        assert isinstance(link.property, nodes.Identifier), "plain names are identifiers"
        return ["call_method", owner, link.property.name, text, arguments, position]

    def optional(
        self, links: list[nodes.Expression], value: Node, value_node: nodes.Node, end: nodes.Node, delete: bool
    ) -> Node:
        """``value?.rest``: undefined (for delete: true) when the value is missing, else the rest of the chain."""
        first = links[0]
        missing: Node = ["true"] if delete else ["undefined"]
        needs = self.needs_statements(end)
        slot = self.new_slot("")
        held: Node = ["slot", slot]
        if needs:
            self.set_slot(slot, value, value_node)
            start: Node = held
        else:
            start = ["assign", held, value]
        tested = start
        plain = [_without_optional(first), *links[1:]]
        key: Node | None = None
        if isinstance(first, nodes.MemberExpression) and not first.optional:
            plain[1] = _without_optional(links[1])
            if first.computed and not isinstance(first.property, nodes.Literal):
                key = ["slot", self.new_slot("")]
                tested = self.member_by_key_held(first, start, held, key, needs)
            else:
                tested = self.member_of(first, start, value_node, False)
        if first.__class__ is nodes.CallExpression or (isinstance(first, nodes.MemberExpression) and first.optional):
            tested = start

        def rest() -> Node:
            if key is None:
                return self.follow(plain, held, value_node, delete)
            method, call = plain[0], plain[1]
            assert isinstance(method, nodes.MemberExpression) and isinstance(call, nodes.CallExpression), (
                "a method call"
            )
            return self.follow(plain[2:], self.call_member(method, call, held, value_node, key), call, delete)

        if not needs:
            return ["conditional", ["unary", "nullish", tested], missing, rest()]
        result = self.new_slot("")
        body = self.collect(lambda: self.set_slot(result, rest(), end))
        gone = self.collect(lambda: self.set_slot(result, missing, end))
        self.emit("if", [[["unary", "nullish", tested], gone]], body, self.position(end))
        return ["slot", result]

    def key_of(self, owner: Node, key: Node) -> Node:
        """A key, in a temporary like its owner, as a property key: once, and after the owner has been found missing."""
        if key[0] in CONSTANTS:
            return key
        return ["conditional", ["unary", "nullish", owner], key, ["unary", "key", key]]

    def member_by_key_held(
        self, link: nodes.MemberExpression, start: Node, owner: Node, key: Node, needs: bool
    ) -> Node:
        """The method that ``owner[key]?.(…)`` tests before it calls it; its key is kept in a slot."""
        value = self.expression(link.property)
        converted = self.key_of(owner, key)
        if needs:
            self.set_slot(key[1], value, link.property)
            self.set_slot(key[1], converted, link.property)
            return self.get_property(link, owner, key)
        keep: Node = ["sequence", [["assign", key, value], ["assign", key, converted]]]
        return self.get_property(link, start, keep)

    def get_property(
        self, node: nodes.MemberExpression, owner: Node, key: Node | None, *, delete: bool = False
    ) -> Node:
        verb, text = "delete" if delete else "get", text_of(node.object)
        if key is not None:
            return [f"{verb}_index", owner, key, text, self.position(node.property)]
        assert isinstance(node.property, nodes.Identifier), "plain names are identifiers"
        return [f"{verb}_member", owner, node.property.name, text, self.position(node.property)]

    def set_property(self, node: nodes.MemberExpression, owner: Node, key: Node | None, value: Node) -> Node:
        text = text_of(node.object)
        if key is not None:
            return ["set_index", owner, key, value, text, self.position(node.property)]
        assert isinstance(node.property, nodes.Identifier), "plain names are identifiers"
        return ["set_member", owner, node.property.name, value, text, self.position(node.property)]


def _without_optional(link: nodes.Expression) -> nodes.Expression:
    """The same link without its ``?.``, which has been dealt with."""
    if isinstance(link, nodes.MemberExpression) and link.optional:
        return PresentMember(link.start, link.end, link.object, link.property, link.computed, False)
    if isinstance(link, nodes.CallExpression):
        return nodes.CallExpression(link.start, link.end, link.callee, link.arguments, False)
    return link
