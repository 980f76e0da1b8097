"""Problems in files: conventions, round trips, and what is refused."""

from __future__ import annotations

import csv
import lzma
from dataclasses import fields, replace
from pathlib import Path

import dimod
import numpy as np
import pytest
from dimod.serialization import coo
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from solvers import InputError, QuboBatch, read_qubo, solve, write_qubo
from solvers.testing import brute_force, example_batch, reference_energies

TEXT = (".qubo", ".sparse", ".bqp", ".txt", ".coo")
OFFSET = (".qs", ".qs.xz", ".qplib", ".bqm")
SUFFIXES = (*TEXT, *OFFSET, ".qubo.xz", ".npz")

# 3 x0 - 4 x0 x2 + 5 x1 x2, in every format and in its own sense.
SAME = {
    "a.qubo": "c from a test\np qubo 0 3 1 2\n0 0 3\nc couplings\n2 0 -4.0\n1 2 5e0\n",
    "a.sparse": "# from a test\n3 3\n1 1 3\n\n1 3 -2\n2 3 2.5\n",
    "a.bqp": "1\n 3 3\n 1 1 -3\n 1 3 2\n 3 2 -2.5\n",
    "a.txt": "1\r\n3 3\r\n1 1 -3\r\n1 3 2\r\n2 3 -2.5\r\n",
    "a.coo": "# vartype=BINARY\n0 0 3\n0 2 -4\n1 2 5\n",
    "a.qs": "# ObjectiveOffset 0\n# Vars Non-zeros\n3 3\n1 1 3\n1 3 -2\n2 3 2.5\n",
    "a.qplib": (
        "! from a test\nname # name\nQBN # type\nMinimize\n3 # variables\n3 # in Q\n"
        "1 1 4 a square\n3 1 -4 |\n3 2 5\n1.5 # default\n3 # others\n1 1\n2 0 b\n3 0\n"
        "0 # constant\n1e20 # infinity\n0\n0\n0\n0\n0\n0\n"
    ),
}
ENERGIES = {(1, 0, 0): 3, (0, 1, 0): 0, (1, 0, 1): -1, (0, 1, 1): 5, (1, 1, 1): 4}


@pytest.fixture
def put(tmp_path):
    """Writes a file; its path."""

    def put(name: str, content: str | bytes) -> Path:
        path = tmp_path / name
        content = content.encode() if isinstance(content, str) else content
        path.write_bytes(content)
        return path

    return put


def energies(qubo):
    return {x: float(qubo.energies([x])[0]) for x in ENERGIES}


class TestConventions:
    @pytest.mark.parametrize("name", SAME)
    def test_the_same_problem_in_every_format(self, put, name):
        qubo = read_qubo(put(name, SAME[name]))
        assert energies(qubo) == ENERGIES
        assert qubo.prior.tolist() == [[0.5] * 3]

    # The files of QPLIB say themselves which sense they have.
    @pytest.mark.parametrize("name", [name for name in SAME if name != "a.qplib"])
    def test_the_other_sense_negates(self, put, name):
        path = put(name, SAME[name])
        other = name not in ("a.bqp", "a.txt")
        qubo = read_qubo(path, maximise=other)
        assert energies(qubo) == {x: -e for x, e in ENERGIES.items()}
        again = put(f"again{path.suffix}", "")
        write_qubo(again, qubo, maximise=other)
        assert energies(read_qubo(again)) == ENERGIES

    def test_format_instead_of_suffix(self, put):
        path = put("gka1a", SAME["a.bqp"])
        assert energies(read_qubo(path, format="or-library")) == ENERGIES
        write_qubo(path, read_qubo(str(path), format="or-library"), format="coo")
        assert energies(read_qubo(path, format="coo")) == ENERGIES

    def test_a_problem_of_qoblib(self, put):
        """The sequence of length 2 of low autocorrelation, with penalties of 10^4."""
        text = "# ObjectiveOffset 1\n3 4\n1 1 30024.0\n1 2 -10008.0\n1 3 -10008.0\n"
        qubo = read_qubo(put("labs002.qs", text + "2 3 5004.0\n"))
        for x, y in ((0, 0), (0, 1), (1, 0), (1, 1)):
            product = (4 * x * y - 2 * x - 2 * y + 1) ** 2
            assert qubo.energies([[x * y, x, y]]) == [product]

    def test_the_sense_of_a_qplib_file_is_its_own(self, put):
        path = put("a.qplib", SAME["a.qplib"].replace("Minimize", "maximize"))
        assert energies(read_qubo(path)) == {x: -e for x, e in ENERGIES.items()}
        assert energies(read_qubo(path, maximise=False)) == ENERGIES

    def test_a_linear_problem_of_qplib(self, put):
        text = "a\nLBB\nmaximize\n2\n-1\n1\n2 3\n0.5\n"
        assert read_qubo(put("a.qplib", text)).energies([[1, 1]]) == [-2.5]

    def test_one_problem_of_several(self, put):
        path = put("bqp.txt", "3\n1 1\n1 1 5\n2 1\n1 2 -4\n\n1 1\n1 1 -7\n")
        lowest = [brute_force(read_qubo(path, problem=k))[1][0] for k in (1, 2, 3)]
        assert lowest == [-5, 0, 0]
        assert read_qubo(path, problem=2).energies([[1, 1]]) == [8]

    def test_nodes_of_the_topology_that_are_not_listed(self, put):
        """Couplings may name them, as the files of Beasley's problems do."""
        qubo = read_qubo(put("a.qubo", "p qubo unconstrained 4 1 1\n1 1 -1\n0 3 2\n"))
        assert qubo.n == 4
        assert qubo.energies([[1, 1, 0, 1]]) == [1]

    def test_labels_of_a_model(self, put):
        bqm = dimod.BinaryQuadraticModel({"b": 1.5}, {("b", "a"): -2}, 0.5, "SPIN")
        path = put("a.bqm", bqm.to_file().read())
        two = read_qubo(path).take([0, 0])
        assert two.energies([[1, 1], [0, 1]]).tolist() == [0, 1]


reals = st.floats(-1e100, 1e100) | st.integers(-100, 100).map(float)


@st.composite
def plain(draw):
    """One row with scales, and with zeros here and there."""
    n = draw(st.integers(0, 5))
    H = draw(arrays(float, (n, n), elements=reals))
    linear = draw(arrays(float, (1, n), elements=reals))
    scale = draw(arrays(float, (1, n), elements=st.sampled_from([0.5, 1, 3])))
    return QuboBatch(
        np.triu(H) + np.triu(H, 1).T, linear, [0], scale, np.full((1, n), 0.5)
    )


class TestRoundTrips:
    @settings(max_examples=60, deadline=None)
    @given(qubo=plain(), suffix=st.sampled_from(SUFFIXES), maximise=st.booleans())
    def test_what_was_read_reads_back_bit_by_bit(
        self, tmp_path_factory, qubo, suffix, maximise
    ):
        path = tmp_path_factory.mktemp("trip") / f"a{suffix}"
        write_qubo(path, qubo, maximise=maximise)
        first = read_qubo(path, maximise=maximise)
        states = np.eye(qubo.n + 1, qubo.n, dtype=np.uint8)
        states = np.vstack([states, 1 - states])[None]
        sizes = replace(qubo, H=abs(qubo.H), linear=abs(qubo.linear))
        close = 1e-12 * reference_energies(sizes, states)
        difference = first.energies(states) - reference_energies(qubo, states)
        assert (abs(difference) <= close).all()
        write_qubo(path, first, maximise=maximise)
        second = read_qubo(path, maximise=maximise)
        np.testing.assert_array_equal(first.H, second.H)
        np.testing.assert_array_equal(first.linear, second.linear)
        assert list(path.parent.iterdir()) == [path]

    @pytest.mark.parametrize("dtype", [np.float32, np.float64])
    @pytest.mark.parametrize("pinned", [True, False])
    def test_npz_keeps_every_field(self, tmp_path, dtype, pinned):
        rng = np.random.default_rng(0)
        qubo = example_batch(3, 4, scale=rng.uniform(0.5, 2, (3, 4)))
        fixed = rng.integers(-1, 2, (3, 4)) if pinned else None
        levels = np.stack([np.full((3, 4), -2), np.full((3, 4), 3)])
        qubo = replace(qubo, H=qubo.H.astype(dtype), fixed=fixed, levels=levels)
        write_qubo(tmp_path / "a.npz", qubo)
        found = read_qubo(tmp_path / "a.npz")
        for name in (f.name for f in fields(QuboBatch)):
            mine, theirs = getattr(qubo, name), getattr(found, name)
            assert (mine is None) == (theirs is None), name
            if mine is not None:
                assert mine.dtype == theirs.dtype
                np.testing.assert_array_equal(mine, theirs)

    @pytest.mark.parametrize("suffix", OFFSET)
    @pytest.mark.parametrize("maximise", [True, False])
    def test_an_offset_is_kept(self, tmp_path, suffix, maximise):
        path = tmp_path / f"a{suffix}"
        write_qubo(path, qubo := example_batch(1, 4), maximise=maximise)
        found = read_qubo(path, maximise=maximise)
        np.testing.assert_allclose(brute_force(found)[1], brute_force(qubo)[1])


class TestOtherReaders:
    def test_dimod_reads_what_was_written(self, tmp_path):
        """Its reader of .coo skips lines with exponents."""
        qubo = QuboBatch.from_matrix([[1e-9, 3e20], [0, -2.5]])
        write_qubo(tmp_path / "a.coo", qubo)
        with (tmp_path / "a.coo").open() as file:
            bqm = coo.load(file)
        assert bqm == dimod.BinaryQuadraticModel.from_qubo(
            {(0, 0): 1e-9, (0, 1): 3e20, (1, 1): -2.5}
        )

    def test_dimods_own_text_is_read(self, put):
        bqm = dimod.generators.gnm_random_bqm(6, 9, "SPIN", random_state=1)
        text = coo.dumps(bqm, vartype_header=True)
        bqm, qubo = coo.loads(text), read_qubo(put("a.coo", text))
        for sample, energy in (
            dimod.ExactSolver().sample(bqm).data(["sample", "energy"])
        ):
            state = [[int(sample[i] > 0) for i in range(6)]]
            assert qubo.energies(state)[0] == pytest.approx(energy)

    def test_text(self, tmp_path):
        qubo = QuboBatch.from_matrix([[3, -4, 0], [0, 0, 2.5], [0, 0, 0]])
        texts = {}
        for suffix in TEXT:
            write_qubo(tmp_path / f"a{suffix}", qubo)
            texts[suffix] = (tmp_path / f"a{suffix}").read_text()
        assert (
            texts[".qubo"] == "p qubo 0 3 3 2\n0 0 3\n1 1 0\n2 2 0\n0 1 -4\n1 2 2.5\n"
        )
        assert texts[".sparse"] == "3 3\n1 1 3\n1 2 -2\n2 3 1.25\n"
        write_qubo(tmp_path / "a.qs", replace(qubo, offset=[-0.5]))
        assert (tmp_path / "a.qs").read_text() == (
            "# ObjectiveOffset -0.5\n3 3\n1 1 3\n1 2 -2\n2 3 1.25\n"
        )
        assert texts[".bqp"] == texts[".txt"] == "1\n3 3\n1 1 -3\n1 2 2\n2 3 -1.25\n"


XZ = lzma.compress(SAME["a.qs"].encode())
QPLIB = SAME["a.qplib"]
BAD_QPLIB = [
    ("", ": the file is empty"),
    ("! only this\n", ":1: the file ends where the problem's name should follow"),
    (QPLIB.replace("QBN", "QXN"), ":3: 'QXN' is no type of problem, such as QBN"),
    (QPLIB.replace("QBN", "QML"), ":3: a problem of type QML has variables that are n"),
    (QPLIB.replace("QBN", "CBL"), ":3: a problem of type CBL has constraints; QBN ha"),
    (QPLIB.replace("Minimize", "least"), ":4: 'least' is not minimize or maximize"),
    (QPLIB.replace("3 # var", "three # var"), ":5: 'three' is not a whole number"),
    (QPLIB.replace("3 # var", "9000000 #"), ": 9000000 variables as a dense matrix"),
    (QPLIB.replace("3 1 -4", "4 1 -4"), ":8: variable 4 is not in 1 to 3"),
    (QPLIB.replace("3 2 5", "1 3 5"), ":9: 1 3 is given in line 8 already"),
    (QPLIB.replace("3 2 5", "3 2"), ":9: expected 'i j weight', not '3 2'"),
    (QPLIB.replace("1.5 #", "nan #"), ":10: the default linear coefficient is nan"),
    (QPLIB.replace("2 0 b", "0 0 b"), ":13: variable 0 is not in 1 to 3"),
    (QPLIB.replace("2 0 b", "1 0 b"), ":13: 1 is given in line 12 already"),
    (QPLIB.replace("2 0 b", "2"), ":13: expected 'i value', not '2'"),
    (QPLIB.replace("0 # con", "O # con"), ":15: the objective's constant 'O' is not"),
    (QPLIB[: QPLIB.index("0 # con")], ":14: the file ends where the objective's cons"),
]
GOOD = "p qubo 0 3 1 2\n0 0 3\n0 2 -4\n1 2 5\n"
OR_GOOD = "2\n2 1\n1 2 5\n1 1\n1 1 4\n"


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.qubo", "", ": the file is empty"),
        ("a.coo", "", ": the file is empty"),
        ("a.qubo", "c nothing\n", ":1: the file ends where the line 'p qubo 0 maxN"),
        ("a.qubo", b"p qubo 0 3\n\xff\xfe\x00\x80", ":2: this is not text"),
        ("a.txt", b"PK\x03\x04\x00\x00", ":1: this is not text"),
        ("a.qubo", "0 0 1\n", ":1: expected 'p qubo 0 maxNodes nNodes nCouplers'"),
        ("a.qubo", "c\np qubo chimera 3 1 2\n", ":2: topology must be 0 or uncons"),
        ("a.qubo", "p qubo 0 x 1 2\n", ":1: 'x' is not a whole number from 0"),
        ("a.qubo", "p qubo 0 3 -1 2\n", ":1: '-1' is not a whole number from 0"),
        ("a.qubo", GOOD[:-6], ":3: the file ends where entry 3 of 3 should follow"),
        ("a.qubo", GOOD + "c\n0 1 1\n", ":6: nothing more was announced"),
        (
            "a.qubo",
            GOOD.replace("1 2\n0 0", "2 1\n0 0"),
            ":1: 2 nodes and 1 couplers are announced, but there are 1 and 2",
        ),
        ("a.qubo", GOOD.replace("0 2 -4", "0 3 -4"), ":3: variable 3 is not in 0 to 2"),
        ("a.qubo", GOOD.replace("1 2 5", "2 0 5"), ":4: 2 0 is given in line 3 alre"),
        ("a.qubo", GOOD.replace(" -4", ""), ":3: expected 'i j weight', not '0 2'"),
        ("a.qubo", GOOD.replace("-4", "four"), ":3: weight 'four' is not a number"),
        ("a.qubo", GOOD.replace("-4", "1_0"), ":3: weight '1_0' is not a number"),
        ("a.sparse", "3 1\n1 2 ١٢\n", ":2: weight '١٢' is not a number"),
        ("a.bqp", "1\n3 1\n1 2 1_0.5\n", ":3: weight '1_0.5' is not a number"),
        ("a.coo", "0 1 ２\n", ":1: weight '２' is not a number"),
        ("a.sparse", "3 1\n1 ٢ 1\n", ":2: '٢' is not a whole number"),
        ("a.qubo", GOOD.replace("-4", "nan"), ":3: weight is nan; it must be finite"),
        ("a.qubo", GOOD.replace("-4", "1e999"), ":3: weight is 1e999; it must be fin"),
        ("a.qubo", GOOD.replace("0 2", "0.0 2"), ":3: '0.0' is not a whole number"),
        ("a.qubo", GOOD.replace("0 2", "0 1_0"), ":3: '1_0' is not a whole number"),
        (
            "a.qubo",
            "p qubo 0 9000000 0 0\n",
            ": 9000000 variables as a dense matrix need .* GiB",
        ),
        ("a.sparse", "3\n1 1 1\n", ":1: expected number of variables and number of e"),
        ("a.sparse", "3 2\n1 1 1\n", ":2: the file ends where entry 2 of 2 should"),
        ("a.sparse", "3 1\n0 1 1\n", ":2: variable 0 is not in 1 to 3"),
        ("a.sparse", "3 2\n1 2 1\n2 1 1\n", ":3: 2 1 is given in line 2 already"),
        ("a.bqp", "3 1\n1 1 1\n", ":1: expected number of problems, not '3 1'"),
        ("a.bqp", "1\n", ":1: the file ends where number of variables and number"),
        ("a.bqp", OR_GOOD, r" holds 2 problems: choose with problem=1 to 2$"),
        ("a.coo", "# vartype=TERNARY\n0 0 1\n", ":1: vartype TERNARY is not BINARY or"),
        ("a.coo", "x" * 99, ":1: expected 'i j weight', not 'xxx.*xxx…'"),
        ("a.bqm", b"DIMODBQM\x02\x00garbage", " is not a file of a dimod model"),
        ("a.npz", b"PK\x03\x04rubbish", " is not an .npz file of plain arrays"),
        (
            "a.json",
            "{}",
            ": name it .qubo, .sparse, .bqp, .txt, .coo, .qs, .qplib, .bqm, .npz",
        ),
        ("a.npz.xz", "", ": name it .qubo, .sparse"),
        ("a.qs.xz", "3 3\n", " is not an .xz file, or damaged"),
        ("a.qs.xz", XZ[:-9], " is not an .xz file, or damaged"),
        ("a.qs.xz", XZ[:30] + b"?" + XZ[31:], " is not an .xz file, or damaged"),
        ("a.qs", "# ObjectiveOffset five\n1 0\n", ":1: ObjectiveOffset 'five' is not"),
        ("a.qs", "# ObjectiveOffset\n1 0\n", ":1: ObjectiveOffset '' is not a number"),
        ("a.qs", "# ObjectiveOffset inf\n1 0\n", ":1: ObjectiveOffset is inf; it must"),
        (
            "a.qs",
            "# ObjectiveOffset 1\n1 0\n# ObjectiveOffset 2\n",
            ":3: ObjectiveOffset is given in line 1 already",
        ),
        ("a.qs", "3 1\n0 1 1\n", ":2: variable 0 is not in 1 to 3"),
        *(("a.qplib", text, message) for text, message in BAD_QPLIB),
    ],
)
def test_malformed(put, name, content, message):
    path = put(name, content)
    with pytest.raises(InputError, match=message) as caught:
        read_qubo(path)
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)


class TestRefused:
    def test_no_such_problem(self, put):
        for problem in (0, 3):
            with pytest.raises(InputError, match=f"problem=1 to 2, not {problem}"):
                read_qubo(put("a.txt", OR_GOOD), problem=problem)

    def test_problem_of_a_file_with_one(self, put):
        with pytest.raises(InputError, match="only files of the OR-Library hold seve"):
            read_qubo(put("a.qubo", GOOD), problem=1)

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            (OR_GOOD.replace("1 1\n", "", 1), r":4: expected number of variables and"),
            (OR_GOOD[:-6], ":4: the file ends where 1 entries should follow"),
            (OR_GOOD.replace("2\n2", "3\n2"), ":5: the file ends where number of var"),
        ],
    )
    def test_miscounts_around_the_chosen_problem(self, put, text, message):
        with pytest.raises(InputError, match=message):
            read_qubo(put("a.txt", text), problem=1)

    def test_paths_that_are_no_files(self, tmp_path):
        with pytest.raises(InputError, match=r"no file .*absent\.qubo"):
            read_qubo(tmp_path / "absent.qubo")
        (tmp_path / "folder.qubo").mkdir()
        with pytest.raises(InputError, match=r"folder\.qubo is not a file"):
            read_qubo(tmp_path / "folder.qubo")

    def test_unknown_format(self, put):
        with pytest.raises(InputError, match="'qbslv'; did you mean qbsolv"):
            read_qubo(put("a.qubo", GOOD), format="qbslv")

    def test_truncated_binary_files(self, tmp_path):
        for suffix in (".npz", ".bqm"):
            path = tmp_path / f"a{suffix}"
            write_qubo(path, example_batch(1, 6))
            whole = path.read_bytes()
            for size in range(0, len(whole) - 1, 1 + len(whole) // 60):
                path.write_bytes(whole[:size])
                with pytest.raises(InputError, match="is not a"):
                    read_qubo(path)

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"H": None}, "is not a QuboBatch: it has no 'H'"),
            ({"H": np.array([[np.nan]])}, r"a\.npz: H\[0, 0\] is nan"),
            ({"scale": np.array([[-1.0]])}, r"a\.npz: scale must be positive"),
            ({"prior": np.array([[{}]])}, "is not an .npz file of plain arrays"),
        ],
    )
    def test_npz_with_other_contents(self, tmp_path, change, message):
        qubo = example_batch(1, 1)
        held = {f.name: getattr(qubo, f.name) for f in fields(qubo)} | change
        np.savez(tmp_path / "a.npz", **{k: v for k, v in held.items() if v is not None})
        with pytest.raises(InputError, match=message):
            read_qubo(tmp_path / "a.npz")

    @pytest.mark.parametrize(
        ("change", "suffixes", "message"),
        [
            ({"fixed": [[-1, 0, 1]]}, (*TEXT, *OFFSET), "hold pinned variables; write"),
            ({"offset": [3.5]}, TEXT, r"cannot hold an offset \(3.5\); write .npz or"),
        ],
    )
    def test_what_a_format_cannot_hold(self, tmp_path, change, suffixes, message):
        qubo = replace(example_batch(1, 3), **change)
        for suffix in suffixes:
            with pytest.raises(InputError, match=message):
                write_qubo(tmp_path / f"a{suffix}", qubo)
            with pytest.raises(InputError, match=r"one row, not 2; take\(\[r\]\) one"):
                write_qubo(tmp_path / f"a{suffix}", example_batch(2, 3))
        assert list(tmp_path.iterdir()) == []

    @pytest.mark.filterwarnings("ignore:overflow")
    def test_a_failed_write_leaves_the_old_file(self, tmp_path):
        path = tmp_path / "a.qubo"
        path.write_text("old")
        huge = replace(example_batch(1, 2), H=[[0, 1e308], [1e308, 0]], offset=[0])
        with pytest.raises(InputError, match=r"Q\[0, 1\] is inf"):
            write_qubo(path, huge)
        assert path.read_text() == "old"
        assert list(tmp_path.iterdir()) == [path]

    def test_paths_that_cannot_be_written(self, tmp_path):
        with pytest.raises(InputError, match=r"cannot write .*a\.npz: No such file"):
            write_qubo(tmp_path / "absent" / "a.npz", example_batch(1, 2))
        (tmp_path / "a.coo").mkdir()
        with pytest.raises(InputError, match=r"cannot write .*a\.coo: "):
            write_qubo(tmp_path / "a.coo", QuboBatch.from_matrix([[1.0]]))


def test_classic_instances(real_data):
    """A convention misread would miss the best known values, or beat them."""
    folder = real_data / "qubo"
    with (folder / "best_known.csv").open(newline="") as file:
        known = list(csv.DictReader(file))
    assert {row["file"] for row in known} == {p.name for p in folder.glob("*.qubo")}
    reached = 0
    for row in known:
        qubo = read_qubo(folder / row["file"], maximise=True)
        assert qubo.n == int(row["n"])
        couplings = np.count_nonzero(np.triu(qubo.H, 1))
        density = couplings / (qubo.n * (qubo.n - 1) / 2)
        assert density == pytest.approx(float(row["density"]), abs=1e-4)
        best = -float(row["best_known_max"])
        found = solve(qubo.take([0] * 16), solver="sa[num_sweeps=100]").energies.min()
        assert best <= found <= 0.98 * best, row["name"]
        reached += found == best
    assert reached >= 0.85 * len(known)
