"""Which lesions are alike, and the loss of triplets, by hand."""

from __future__ import annotations

import math

import pytest
import torch

from mmpluld.errors import InputError
from mmpluld.models.losses.triplet_loss import LesionTripletLoss, same_lesion, tag_similarity

NAN = math.nan


def test_similarity_of_tags():
    tags = torch.tensor([[1, 1, 0, 0], [1, 1, 1, 0], [0, 0, 0, 1], [NAN, NAN, NAN, NAN], [1, NAN, 0, 0]])
    found = tag_similarity(tags)
    # Two common of three: 2 * 2/3; alone 2 * 2/2; an uncertain tag is as none: one common of two: 1 * 1/2.
    assert found[0].tolist() == pytest.approx([2, 4 / 3, 0, NAN, 0.5], nan_ok=True)
    assert found[3].isnan().all()
    assert found[2, 2] == 1


def test_which_marks_are_one_lesion():
    # Two views of mark 5; 6 in the same volume; 7 in another one of the patient; 8 and 9 with numbers; 10: patient q.
    # Of another file with numbers of its own: 5 in another volume of p, 5 of patient r in a volume that is named a too.
    ids = torch.tensor([5, 5, 6, 7, 8, 9, 10, 5, 5])
    numbers = torch.tensor([-1, -1, -1, -1, 2, 2, 2, -1, -1])
    patients = ["p"] * 6 + ["q", "p", "r"]
    volumes = ["a", "a", "a", "b", "a", "b", "c", "d", "a"]
    same = same_lesion(ids, numbers, patients, volumes)
    assert same[0].tolist() == pytest.approx([1, 1, 0, NAN, 0, NAN, 0, NAN, 0], nan_ok=True)
    assert same[4].tolist() == pytest.approx([0, 0, 0, NAN, 1, 1, 0, NAN, 0], nan_ok=True)
    assert same[6].tolist() == [0, 0, 0, 0, 0, 0, 1, 0, 0]


def test_marks_of_joined_datasets_with_the_same_numbers(joined_datasets):
    dataset = joined_datasets(one=None, two=None)
    samples = [dataset.get_data_info(index) for index in range(len(dataset))]
    ids = torch.tensor([item["lesion_id"] for sample in samples for item in sample["instances"]])
    assert ids.tolist() == [0, 1, 0, 1]
    names = [[sample[key] for sample in samples] for key in ("patient", "volume_id")]
    assert torch.equal(same_lesion(ids, torch.full((4,), -1), *names), torch.eye(4))


def test_loss_by_tags():
    # Lesions 0 and 1 have one tag, 2 another. Squared distances: 0-1 0.8, 0-2 and 1-2: 2 and 0.4.
    embeddings = torch.tensor([[1.0, 0.0], [0.6, 0.8], [0.0, 1.0]])
    tags = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    same = torch.eye(3)
    loss = LesionTripletLoss(margin=0.1, num_triplets=4000, loss_weight=5.0)
    # Anchor 0: 0.1 + 0.8 - 2 < 0, which does not count; anchor 1: 0.1 + 0.8 - 0.4 = 0.5; lesion 2 has no positive.
    assert loss(embeddings, tags, same, ["p", "q", "r"]).item() == pytest.approx(5 * 0.5)
    assert loss(embeddings[:2], tags[:2], same[:2, :2], ["p", "q"]) == 0  # no negative


def test_hard_negatives_are_of_the_patient():
    embeddings = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.8, 0.6], [0.0, 1.0]])
    tags = torch.full((4, 2), NAN)
    same = torch.tensor([[1, 1, 0, 0], [1, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1.0]])
    patients = ["p", "p", "p", "q"]
    # Squared distance to the patient's other lesion 0.4, to that of another patient 2; margin 3: 2.6 and 1.
    for share, expected in ((1.0, 2.6), (0.0, 1.0), (0.5, 1.8)):
        torch.manual_seed(0)
        loss = LesionTripletLoss(margin=3.0, num_triplets=4000, identity_share=1.0, hard_share=share, loss_weight=1.0)
        assert loss(embeddings, tags, same, patients).item() == pytest.approx(expected, rel=0.1)


def test_negatives_of_the_only_kind_are_drawn_whatever_the_share():
    embeddings = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    same = torch.tensor([[1, 1, 0], [1, 1, 0], [0, 0, 1.0]])
    for patients, share in ((["p", "p", "q"], 1.0), (["p", "p", "p"], 0.0)):
        loss = LesionTripletLoss(margin=3.0, num_triplets=10, identity_share=1.0, hard_share=share, loss_weight=1.0)
        assert loss(embeddings, torch.full((3, 2), NAN), same, patients).item() == pytest.approx(1.0)


def test_what_may_be_one_lesion_is_no_negative():
    embeddings = torch.tensor([[1.0, 0.0], [1.0, 0.0], [1.0, 0.0]])
    same = torch.tensor([[1, 1, NAN], [1, 1, NAN], [NAN, NAN, 1]])
    loss = LesionTripletLoss(identity_share=1.0)
    assert loss(embeddings, torch.full((3, 2), NAN), same, ["p"] * 3) == 0


def test_gradient_pulls_the_positive():
    embeddings = torch.tensor([[1.0, 0.0], [0.6, 0.8], [0.0, 1.0]], requires_grad=True)
    tags = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    LesionTripletLoss(num_triplets=100)(embeddings, tags, torch.eye(3), ["p", "q", "r"]).backward()
    assert embeddings.grad[1, 1] > 0  # towards lesion 0, away from 2


def test_faulty_settings():
    for settings in ({"identity_share": 1.5}, {"hard_share": -0.1}, {"num_triplets": 0}):
        with pytest.raises(InputError, match="LesionTripletLoss: "):
            LesionTripletLoss(**settings)
