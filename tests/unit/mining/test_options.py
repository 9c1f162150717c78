"""The rules of mining as the command tells of them."""

from __future__ import annotations

from dataclasses import fields

import pytest

from mmpluld.cli.main import command_parser
from mmpluld.cli.mine import RULES
from mmpluld.mining.options import MiningOptions


def test_every_rule_is_an_option_of_the_command():
    options = {item.dest for item in command_parser("mine")._actions}
    assert {rule.name for rule in fields(MiningOptions)} <= options


@pytest.mark.parametrize("name", RULES)
def test_help_of_the_command_says_the_defaults(name):
    default = getattr(MiningOptions(), name)
    said = RULES[name][1].rpartition("(")[2].removesuffix(")").partition(":")[0]
    assert said in (["all", "any"] if default is None else [f"{default:g}"])


@pytest.mark.parametrize("name", ["several", "match"])
def test_help_of_the_command_says_which_choice_is_the_default(name):
    (option,) = [item for item in command_parser("mine")._actions if item.dest == name]
    before = option.help.partition("(default)")[0]
    assert [choice for choice in option.choices if choice in before] == [getattr(MiningOptions(), name)]
