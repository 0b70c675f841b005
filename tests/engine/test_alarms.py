import pytest

from ssodkit.engine.alarms import Advice, number_alarm, teacher_alarm

ADVICE = Advice("raise this", "lower that")


@pytest.mark.parametrize(
    ("counts", "kind"),
    [
        ([3.0, 3.0, 3.0], "few"),
        ([3.0, 3.0], None),  # too short to say
        ([3.0, 3.0, 4.0], None),
        ([25.0, 25.0, 25.0], "many"),
        ([25.0, 25.0, 23.0], None),
        ([10.0, 12.0, 14.0, 16.0], "away"),
        ([4.0, 5.0, 6.0, 9.0], None),  # grows, but towards the labels' number
        ([10.0, 14.0, 13.0, 16.0], None),
        ([12.0] * 9, None),
    ],
)
def test_number_alarm__goes_by_three_reports_and_the_labels_number(counts, kind):
    alarm = number_alarm(counts, 12.0, ADVICE)
    assert (alarm and alarm[0]) == kind


def test_number_alarm__names_the_setting_that_helps():
    assert number_alarm([1.0] * 3, 12.0, ADVICE)[1].endswith("taught as background; raise this.")
    assert "lower that, or lower `method.unlabeled_weight`" in number_alarm([10.0, 12.0, 14.0, 16.0], 12.0, ADVICE)[1]


def test_number_alarm__labels_without_boxes_say_nothing():
    assert number_alarm([1.0] * 3, 0.0, ADVICE) is None


def evaluated(teacher, student=0.0):
    """The same student after every hundred steps, and these teachers."""
    return {100 * number: {"student": student, "teacher": score} for number, score in enumerate(teacher, start=1)}


def test_teacher_alarm__is_given_after_two_evaluations_below_the_best():
    assert teacher_alarm(evaluated([]), 400) is None
    assert teacher_alarm(evaluated([0.40, 0.50, 0.47]), 400) is None
    assert teacher_alarm(evaluated([0.40, 0.50, 0.47, 0.49]), 400) is None
    said = teacher_alarm(evaluated([0.40, 0.50, 0.47, 0.46]), 400)
    assert said.startswith("The teacher gets worse on the held-out labels: 50.0 AP after step 200, 46.0 now.")


def test_teacher_alarm__of_a_teacher_far_behind_its_student():
    assert teacher_alarm(evaluated([0.48], student=0.50), 400) is None
    assert teacher_alarm(evaluated([0.34], student=0.50), 400) is None  # an average begins late
    assert teacher_alarm(evaluated([0.2, 0.34], student=0.50), 400).startswith("The teacher is 16.0 AP behind its")


def test_teacher_alarm__without_a_teacher_there_is_nothing_to_say():
    assert teacher_alarm({100: {"student": 0.5}, 200: {"student": 0.1}, 300: {"student": 0.1}}, 400) is None
