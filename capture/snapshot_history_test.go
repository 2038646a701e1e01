package capture

import (
	"maps"
	"math/rand/v2"
	"testing"
	"time"
)

// step lets one thing happen. Before copying nobody reads chunks.
func (m *copyModel) step(rnd *rand.Rand, copying bool) {
	kinds := []string{"insert", "insert", "insert", "update", "partial", "partial", "other partial", "rekey", "rekey partial", "rekey partial", "delete"}
	if m.keys < 5 { // Few rows that move about, mostly.
		kinds = []string{"insert", "insert", "rekey partial", "rekey partial", "rekey partial", "rekey partial", "partial", "rekey", "delete"}
	}
	event := rnd.IntN(16)
	switch {
	case event < 5:
		kind := kinds[rnd.IntN(len(kinds))]
		if rnd.IntN(12) == 0 {
			kind = "truncate"
		}
		m.run(kind, rnd.IntN(4), rnd.IntN(m.keys), rnd.IntN(m.keys), 1+rnd.IntN(99))
	case event < 7:
		m.commit(rnd.IntN(3))
	case event < 8:
		m.show(rnd.IntN(3))
	case event < 11:
		m.pass()
	case !copying:
	case event < 13:
		m.begin()
	case event < 14:
		m.take(1 + rnd.IntN(4))
	case rnd.IntN(40) == 0:
		m.restart()
	default:
		m.write(rnd.IntN(10) == 0)
	}
}

func TestCopyUnderAnyHistoryEndsAsTheServer(t *testing.T) {
	t.Parallel()
	seed := uint64(time.Now().UnixNano())
	var retries, singles int
	for i := range uint64(6000) {
		rnd := rand.New(rand.NewPCG(seed, i))
		m := newCopyModel()
		m.keys = []int{3, 4, 12}[rnd.IntN(3)]
		for range rnd.IntN(60) {
			m.step(rnd, false)
		}
		m.arm()
		for range rnd.IntN(300) {
			m.step(rnd, true)
		}
		if diff := m.finish(); diff != "" {
			t.Fatalf("seed %d, history %d: the sink is not as the server (-server +sink):\n%s", seed, i, diff)
		}
		retries += m.retries
		singles += m.singles
	}
	if singles == 0 {
		t.Error("no key was copied again")
	}
	if retries == 0 {
		t.Error("no snapshot has missed a transaction that is in the log")
	}
}

// Each case is one order of events that a copy without the rule that it is named after gets
// wrong. The table has the rows 1 and 2.
func TestRacesOfACopy(t *testing.T) {
	t.Parallel()
	do := func(m *copyModel, kind string, key, to int) {
		m.run(kind, 9, key, to, 7)
		m.commit(0)
	}
	end := func(m *copyModel) { m.show(0); m.pass() }
	for name, race := range map[string]func(m *copyModel){
		"a transaction in the log that the snapshot does not see": func(m *copyModel) {
			do(m, "update", 1, 1)
			m.pass()
			m.begin()
			m.take(9)
			if m.chunks[0].rows != nil {
				t.Error("the snapshot was taken")
			}
			m.show(0)
			m.take(9)
		},
		"one of before the copy began that the snapshot does not see": func(m *copyModel) {
			do(m, "update", 1, 1)
			m.arm()
			m.begin()
			m.take(9)
			m.show(0)
			m.take(9)
		},
		"a change inside the window": func(m *copyModel) { m.begin(); m.take(9); do(m, "update", 1, 1); end(m) },
		"a change inside the window that repeats only some values": func(m *copyModel) {
			m.begin()
			m.take(9)
			do(m, "partial", 1, 1)
			end(m)
			do(m, "other partial", 1, 1)
			end(m)
		},
		"a delete inside the window":   func(m *copyModel) { m.begin(); m.take(9); do(m, "delete", 1, 1); end(m) },
		"a truncate inside the window": func(m *copyModel) { m.begin(); m.take(9); do(m, "truncate", 1, 1); end(m) },
		"a change of key inside the window": func(m *copyModel) {
			m.begin()
			m.take(9)
			do(m, "rekey partial", 1, 5)
			end(m)
		},
		"a change of key to where the copy has been": func(m *copyModel) {
			m.begin()
			m.take(1)
			m.write(false)
			do(m, "rekey partial", 2, 0)
			end(m)
		},
		"a change that the chunk has but the reader has not passed": func(m *copyModel) {
			m.begin()
			do(m, "partial", 1, 1)
			m.show(0)
			m.take(9)
			m.write(false)
			if len(m.chunks) == 0 {
				t.Error("the chunk was written before its time")
			}
		},
	} {
		m := newCopyModel()
		m.rows[1], m.rows[2] = copyRow{"one", "ONE"}, copyRow{"two", "TWO"}
		m.state = maps.Clone(m.rows)
		race(m)
		if diff := m.finish(); diff != "" {
			t.Errorf("%s: the sink is not as the server (-server +sink):\n%s", name, diff)
		}
	}
}
