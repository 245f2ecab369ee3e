from networks import shapes_of

from stjax import models


def build(**options):
  return models.build("resnet", **dict(features=4, blocks=(1, 2)) | options)


def test_blocks_may_be_a_list():
  module = build(blocks=[1, 2])
  assert module == build() and hash(module) == hash(build())


def test_a_block_that_changes_the_width_has_a_way_around_it_if_asked():
  for project in (False, True):
    params = shapes_of(build(project=project), (3, 7, 9, 2))["params"]
    found = [name for name, block in params.items() if "around" in block]
    assert found == (["block_1"] if project else [])
