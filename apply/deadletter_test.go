package apply_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/dbmazz/dbmazz/apply"
	"github.com/dbmazz/dbmazz/bus/cdc"
)

func bad(_ string, values []string) bool { return strings.HasPrefix(values[1], "bad") }

// letterBench runs apply with dead letters on a sink that refuses rows.
func letterBench(t *testing.T, config apply.Config) (*bench, *memSink, *memLetters) {
	t.Helper()
	sink, letters := newMemSink(nil), newMemLetters()
	sink.poison = bad
	config.DeadLetters, config.MinSpacing, config.BackoffMax = letters, time.Millisecond, time.Millisecond
	return newBench(t, config, sink), sink, letters
}

func (m *memLetters) list() []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	var out []string
	for _, id := range m.order {
		l := m.letters[id]
		out = append(out, fmt.Sprint(l.Kind, " ", l.Op, " ", l.Key, " ", l.Column))
	}
	return out
}

func (b *bench) steps(t *testing.T, steps ...func(*cdc.Writer)) {
	t.Helper()
	b.transaction(t, func(w *cdc.Writer) {
		for _, s := range steps {
			s(w)
		}
	})
	b.drain(t)
}

func TestARefusedRowGoesToTheDeadLettersAloneAndApplyGoesOn(t *testing.T) {
	t.Parallel()
	for _, names := range []bool{true, false} {
		t.Run(fmt.Sprintf("the sink names it %t", names), func(t *testing.T) {
			t.Parallel()
			b, sink, letters := letterBench(t, apply.Config{})
			sink.names = names
			var steps []func(*cdc.Writer)
			want := map[string]string{}
			for i := range 40 {
				k, a := "k"+strconv.Itoa(i), strconv.Itoa(i)
				if i == 0 || i == 17 || i == 18 || i == 39 {
					a = "bad" + a
				} else {
					want[k] = k + "," + a + ",x"
				}
				steps = append(steps, b.insert(k, a, "x"))
			}
			b.steps(t, steps...)
			if diff := cmp.Diff(want, sink.live("t1")); diff != "" {
				t.Fatal(diff)
			}
			wantLetters := []string{"refused insert id=k0 a", "refused insert id=k17 a", "refused insert id=k18 a", "refused insert id=k39 a"}
			if diff := cmp.Diff(wantLetters, letters.list()); diff != "" {
				t.Fatal(diff)
			}
			if s := b.Status(); s.Letters != 4 || s.Err != "" || s.Changes != 40 {
				t.Fatalf("%+v", s)
			}
			if sink.calls > 30 {
				t.Errorf("%d calls of the sink for four rows", sink.calls)
			}
		})
	}
}

func TestALetterHasAllThatARetryNeeds(t *testing.T) {
	t.Parallel()
	b, sink, letters := letterBench(t, apply.Config{})
	b.steps(t, b.insert("k", "bad", "x"))
	var letter apply.DeadLetter
	for _, l := range letters.letters {
		data, err := json.Marshal(l)
		if err != nil {
			t.Fatal(err)
		}
		if err := json.Unmarshal(data, &letter); err != nil {
			t.Fatal(err)
		}
	}
	if letter.Namespace != "public" || letter.Table != "t1" || letter.Position != b.tail.Last || letter.Reason != "poison" ||
		letter.Target != "int" || time.Since(letter.CommitTime) > time.Minute || letter.SetAside.IsZero() || len(letter.ID) > 64 {
		t.Fatalf("%+v", letter)
	}
	other := newMemSink(nil)
	other.poison = bad
	if _, err := apply.Retry(t.Context(), other, &letter); !strings.Contains(err.Error(), letter.ID) {
		t.Fatalf("a row that is still refused: %v", err)
	}
	for range 2 {
		result, err := apply.Retry(t.Context(), sinkOf(t, sink), &letter)
		if err != nil || result.Rows != 1 || result.Left != 0 {
			t.Fatalf("%+v, %v", result, err)
		}
	}
	if diff := cmp.Diff(map[string]string{"k": "k,bad,x"}, sink.live("t1")); diff != "" {
		t.Fatal(diff)
	}
	letter.Frames[0][len(letter.Frames[0])-1] ^= 1
	if _, err := apply.Retry(t.Context(), sink, &letter); !errors.Is(err, cdc.ErrCorrupt) {
		t.Fatalf("a damaged letter: %v", err)
	}
}

// sinkOf makes the sink take everything from now on.
func sinkOf(t *testing.T, sink *memSink) *memSink {
	t.Helper()
	sink.mu.Lock()
	defer sink.mu.Unlock()
	sink.poison = nil
	return sink
}

func TestLaterChangesOfARowThatIsHeldBackFollowItUnlessTheyReplaceIt(t *testing.T) {
	t.Parallel()
	type steps [][]func(*cdc.Writer)
	var x bench
	x.table = schema("t1", 1)
	for _, c := range []struct {
		name   string
		steps  steps
		want   []string // letters
		before map[string]string
		after  map[string]string // the retry of all
	}{
		{
			"a part follows",
			steps{{x.insert("k", "bad", "x")}, {x.update("k", "2", "?")}},
			[]string{"refused insert id=k a", "follows update id=k "},
			map[string]string{},
			map[string]string{"k": "k,2,x"},
		},
		{
			"a whole row does not",
			steps{{x.insert("k", "bad", "x")}, {x.update("k", "2", "y")}, {x.update("k", "3", "?")}},
			[]string{"refused insert id=k a"},
			map[string]string{"k": "k,3,y"},
			map[string]string{"k": "k,3,y"},
		},
		{
			"a delete does not, and stays after a retry",
			steps{{x.insert("k", "bad", "x")}, {x.remove("k")}},
			[]string{"refused insert id=k a", "passed delete id=k "},
			map[string]string{},
			map[string]string{},
		},
		{
			"a row that takes what is held back follows",
			steps{{x.insert("k", "bad", "x")}, {x.move("k", "m", "2", "?")}},
			[]string{"refused insert id=k a", "follows update id=m "},
			map[string]string{},
			map[string]string{"m": "m,2,x"},
		},
		{
			"a row keeps its place if its update of the key is refused",
			steps{{x.insert("k", "1", "x")}, {x.move("k", "m", "bad", "?")}, {x.insert("k", "2", "new")}, {x.update("m", "3", "?")}},
			[]string{"refused update id=m a", "follows insert id=k ", "follows update id=m "},
			map[string]string{"k": "k,1,x"},
			map[string]string{"m": "m,3,x", "k": "k,2,new"},
		},
	} {
		for _, hard := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, hard deletes %t", c.name, hard), func(t *testing.T) {
				t.Parallel()
				b, sink, letters := letterBench(t, apply.Config{})
				sink.hard = hard
				for _, s := range c.steps {
					b.steps(t, s...)
				}
				if diff := cmp.Diff(c.want, letters.list()); diff != "" {
					t.Fatal(diff)
				}
				if diff := cmp.Diff(c.before, sink.live("t1")); diff != "" {
					t.Fatal(diff)
				}
				if err := letters.retryAll(t.Context(), sinkOf(t, sink)); err != nil {
					t.Fatal(err)
				}
				if diff := cmp.Diff(c.after, sink.live("t1")); diff != "" {
					t.Fatal(diff)
				}
				if sink.err != nil {
					t.Fatal(sink.err)
				}
			})
		}
	}
}

func TestLettersThatAreGoneHoldNothingBack(t *testing.T) {
	t.Parallel()
	b, sink, letters := letterBench(t, apply.Config{})
	b.steps(t, b.insert("k", "bad", "x"))
	sinkOf(t, sink)
	if err := letters.retryAll(t.Context(), sink); err != nil {
		t.Fatal(err)
	}
	b.steps(t, b.update("k", "2", "?"))
	if diff := cmp.Diff(map[string]string{"k": "k,2,x"}, sink.live("t1")); diff != "" {
		t.Fatal(diff)
	}
	if n := b.Status().Letters; n != 1 {
		t.Fatalf("%d letters", n)
	}
}

func TestATableThatRefusesEverythingStopsApplyBeforeItIsAllSetAside(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		first      []string
		refusedMax int
		most       int
	}{
		"nothing is stored":   {nil, 0, 100},
		"too many altogether": {[]string{"good"}, 7, 7},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b, sink, letters := letterBench(t, apply.Config{RefusedMax: c.refusedMax})
			b.transaction(t, func(w *cdc.Writer) {
				for _, a := range c.first {
					b.insert("first", a, "x")(w)
				}
				for i := range 150 {
					b.insert("k"+strconv.Itoa(i), "bad", "x")(w)
				}
			})
			wait(t, "apply stops", func() bool { return strings.Contains(b.Status().Err, "it is the table that is wrong") })
			if s := b.Status(); s.State != apply.Failing || !strings.Contains(s.Err, "poison") || len(letters.list()) != c.most {
				t.Fatalf("%d letters, %+v", len(letters.list()), s)
			}
			// Somebody repairs the table.
			sinkOf(t, sink)
			b.drain(t)
			if n := len(sink.live("t1")); n != 150+len(c.first)-c.most {
				t.Fatalf("%d rows", n)
			}
		})
	}
}

// refusing is a sink with an error that is not about a row.
type refusing struct {
	*recorder
	err error
}

func (s *refusing) Apply(context.Context, *apply.TableBatch) (apply.Result, error) {
	s.arrived <- struct{}{}
	return apply.Result{}, s.err
}

func TestErrorsThatAreNotAboutARowMakeNoLetters(t *testing.T) {
	t.Parallel()
	sink, letters := &refusing{newRecorder(), errors.New("table t1 does not exist")}, newMemLetters()
	b := newBench(t, apply.Config{DeadLetters: letters, BackoffMax: time.Millisecond}, sink)
	b.transaction(t, b.insert("k", "1", "x"))
	for range 5 {
		<-sink.arrived
	}
	if got := letters.list(); len(got) > 0 || b.Status().Failures < 4 {
		t.Fatalf("letters %v, %+v", got, b.Status())
	}
}

func TestWithoutDeadLettersARefusedRowStopsApplyWithItsMessage(t *testing.T) {
	t.Parallel()
	sink := newMemSink(nil)
	sink.poison = bad
	b := newBench(t, apply.Config{BackoffMax: time.Millisecond}, sink)
	b.transaction(t, b.insert("k", "bad", "x"))
	wait(t, "apply stops", func() bool { return b.Status().Failures > 2 })
	if s := b.Status(); !strings.Contains(s.Err, "column a (text -> int): poison") {
		t.Fatalf("%+v", s)
	}
	sinkOf(t, sink)
	b.drain(t)
}

func TestTheLettersOfATableGoTogetherAndATruncateEndsThem(t *testing.T) {
	t.Parallel()
	ref := func(id, kind string, commit cdc.LSN, keys ...string) apply.LetterRef {
		r := apply.LetterRef{ID: id, Kind: apply.LetterKind(kind), Namespace: "n", Table: "t", Position: cdc.Position{Commit: commit, Ordinal: 1}}
		for _, k := range keys {
			r.Keys = append(r.Keys, []byte(k))
		}
		return r
	}
	refs := []apply.LetterRef{
		ref("1", "refused", 1, "a"), ref("2", "refused", 2, "b"), ref("3", "passed", 3), ref("4", "refused", 4, "a", "c"),
		ref("5", "follows", 5, "c"), ref("6", "refused", 6, "d"), ref("7", "passed", 7, "d"),
	}
	other := ref("0", "refused", 1, "a")
	other.Table = "other"
	refs = append(refs, other)
	slices.Reverse(refs)
	for id, want := range map[string]apply.Chain{
		"1": {Retry: []string{"3", "4", "5"}, Delete: []string{"1", "4", "5"}}, // 2 is older than the truncate
		"5": {Retry: []string{"3", "4", "5"}, Delete: []string{"1", "4", "5"}},
		"2": {Retry: []string{"3"}, Delete: []string{"2"}},
		"6": {Retry: []string{"3", "6", "7"}, Delete: []string{"6", "7"}},
		"0": {Retry: []string{"0"}, Delete: []string{"0"}},
		"9": {},
	} {
		if diff := cmp.Diff(want, apply.Related(refs, id)); diff != "" {
			t.Errorf("letter %s: %s", id, diff)
		}
	}
}

func TestATableWithoutAKeyGetsEveryChangeInOrder(t *testing.T) {
	t.Parallel()
	for _, withLetters := range []bool{false, true} {
		t.Run(fmt.Sprintf("dead letters %t", withLetters), func(t *testing.T) {
			t.Parallel()
			b, sink, letters := letterBench(t, apply.Config{})
			if b.table = newOracle().schemas["t3"]; !withLetters {
				sink.poison = nil
			}
			b.stream.schemas[b.table.Fingerprint()] = b.table
			full := func(op func(), old []string, vals ...string) func(*cdc.Writer) {
				return func(w *cdc.Writer) {
					if op(); old != nil {
						put(w, old...)
					}
					if vals != nil {
						put(w, vals...)
					}
				}
			}
			update, remove := func() { b.w.Update(b.table, cdc.OldFull) }, func() { b.w.Delete(b.table, cdc.OldFull) }
			b.steps(
				t, b.insert("k", "1", "big"), b.insert("k", "1", "big"), full(update, []string{"k", "1", "big"}, "k", "bad2", "?"),
				full(remove, []string{"k", "1", "big"}), b.insert("k", "bad3", "y"),
			)
			want := []string{"insert [k 1 big]", "insert [k 1 big]", "update [k bad2 big]", "delete [k 1 big]", "insert [k bad3 y]"}
			if withLetters {
				for _, i := range []int{4, 2} {
					want = slices.Delete(want, i, i+1)
				}
				if got := letters.list(); len(got) != 2 {
					t.Fatalf("letters %v", got)
				}
			}
			if diff := cmp.Diff(want, sink.appended("t3")); diff != "" {
				t.Fatal(diff)
			}
			if sink.err != nil {
				t.Fatal(sink.err)
			}
		})
	}
}

func TestAnUpdateOfATableWithoutAKeyThatLacksValuesIsRefusedByName(t *testing.T) {
	t.Parallel()
	sink := newMemSink(nil)
	b := newBench(t, apply.Config{BackoffMax: time.Millisecond}, sink)
	b.table = newOracle().schemas["t3"]
	b.stream.schemas[b.table.Fingerprint()] = b.table
	b.transaction(t, b.update("k", "1", "?"))
	wait(t, "apply stops", func() bool {
		return strings.Contains(b.Status().Err, "ALTER TABLE public.t3 REPLICA IDENTITY FULL")
	})
	if sink.calls != 0 {
		t.Fatal("the sink was called")
	}
}

// TestThePlanKnowsAPartBeforeItIsSentAndALetterIsStoredBeforeThePlanLeavesIt looks into
// the stored state at every call.
func TestThePlanKnowsAPartBeforeItIsSentAndALetterIsStoredBeforeThePlanLeavesIt(t *testing.T) {
	t.Parallel()
	b, sink, letters := letterBench(t, apply.Config{})
	parts := func() string {
		data, _, err := b.stream.load("")
		if err != nil {
			t.Error(err)
		}
		var state struct {
			Plan struct {
				Parts map[string]struct{ Done, End, Refused int }
			}
		}
		if err := json.Unmarshal(data, &state); err != nil {
			t.Error(err)
		}
		p, ok := state.Plan.Parts["1"]
		if !ok {
			return "none"
		}
		return fmt.Sprintf("%d-%d, %d letters", p.Done, p.End, p.Refused)
	}
	var seen []string
	sink.script = func() fault { // Under the sink's lock.
		seen = append(seen, "call, plan "+parts())
		return none
	}
	letters.fail = func() (before, after error) {
		seen = append(seen, "letter, plan "+parts())
		return nil, nil
	}
	b.steps(t, b.insert("k0", "0", "x"), b.insert("k1", "bad", "x"), b.insert("k2", "2", "x"))
	want := []string{
		"call, plan none", "call, plan 0-1, 0 letters", "call, plan 1-3, 0 letters", "call, plan 1-2, 0 letters",
		"letter, plan 1-2, 0 letters", "call, plan 2-3, 1 letters",
	}
	if diff := cmp.Diff(want, seen); diff != "" {
		t.Fatal(diff)
	}
}
