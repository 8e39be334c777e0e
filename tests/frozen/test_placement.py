"""Which boundary's activations are stored, and where."""

from ftjax.frozen.placement import Room, choose_boundary


def test_the_boundary_is_the_latest_that_fits():
    room = Room((100, 4_000, 3_000, 1_000, 200), (1.0,) * 5, memory=3_000)
    assert choose_boundary(room, 4) == 4
    assert choose_boundary(room, 2) == 2
    assert choose_boundary(room._replace(memory=2_999), 2) == 0
    assert choose_boundary(room._replace(memory=1_000), 3) == 3


def test_the_disk_takes_what_is_read_faster_than_made():
    room = Room((100, 400, 300, 100, 50), (9.0, 9.0, 9.0, 9.0, 9.0), 60, 300, 0.05)
    assert choose_boundary(room, 1) == 0  # larger than the disk
    assert choose_boundary(room, 2) == 2  # 300 bytes as 15 FLOPs beside 18
    assert choose_boundary(room._replace(flops_per_byte=0.1), 2) == 0
    # While one is written the one before is read: 300 and 100 bytes.
    assert choose_boundary(room, 3, previous=2) == 2
    assert choose_boundary(room._replace(disk=400), 3, previous=2) == 3
    assert choose_boundary(room, 4, previous=2) == 4  # in memory


def test_views_take_the_room_of_so_many_images():
    """Four images of five are trained on; their views stand beside them."""
    room = Room((90, 900, 400, 100), (9.0,) * 4, memory=900, train_share=0.8)
    assert room.with_views(1).stored(2) == 720
    assert room.with_views(4).stored(0) == 90  # those of the images are made anew
    assert choose_boundary(room.with_views(1), 2) == 2
    assert choose_boundary(room.with_views(2), 2) == 0
    assert choose_boundary(room.with_views(8), 3) == 3
    assert choose_boundary(room.with_views(11), 3) == 0
