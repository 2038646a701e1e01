package apply_test

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/dbmazz/dbmazz/apply"
	"github.com/dbmazz/dbmazz/bus/cdc"
)

// model runs applies on a stream and a sink, one life after the other, with what goes
// wrong drawn beforehand.
type model struct {
	mu                  sync.Mutex
	calls, saves, fence []fault // what happens to the next call, save, question
	stream              *memStream
	sink                *memSink
	letters             *memLetters // nil for none
	flushBytes          int
	slow                bool // calls take so long that the next batch is worked on
	lives               []*life
}

// life is one process: its sink and its stream, which must not be used any more once
// another has taken over.
type life struct {
	*memStream
	m       *model
	name    string // of its state
	apply   *apply.Apply
	stop    context.CancelFunc
	done    chan error
	tripped atomic.Bool
	// asked counts the times that the fence was up, begun what was done after it.
	asked, begun atomic.Int64
	over         chan struct{} // closed when another must go on in its place
	once         sync.Once
}

var errTaken = errors.New("another apply has taken over")

func (m *model) draw(list *[]fault) fault {
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(*list) == 0 {
		return none
	}
	f := (*list)[0]
	*list = (*list)[1:]
	return f
}

func drawFaults(t *rapid.T, label string, kinds ...fault) []fault {
	return rapid.SliceOfN(rapid.SampledFrom(append(kinds, none, none)), 0, 30).Draw(t, label)
}

// happen makes a fault end the life, or another take over.
func (l *life) happen(f fault) {
	switch f {
	case crash, crashAfter:
		l.stop()
		l.end()
	case trip:
		l.tripped.Store(true)
		l.end()
	default:
	}
}

func (l *life) end() { l.once.Do(func() { close(l.over) }) }

// mayWrite finds out about writes that must not be: each needs a question of its own.
func (l *life) mayWrite(what string) {
	if l.begun.Add(1) > l.asked.Load() {
		l.m.sink.mu.Lock()
		defer l.m.sink.mu.Unlock()
		l.m.sink.broken("%s by a process that another has replaced", what)
	}
}

func (l *life) ask() error {
	l.happen(l.m.draw(&l.m.fence))
	if l.tripped.Load() {
		return errTaken
	}
	l.asked.Add(1)
	return nil
}

func (l *life) Put(ctx context.Context, letter *apply.DeadLetter) error {
	l.mayWrite("dead letter")
	return l.m.letters.Put(ctx, letter)
}

func (l *life) Refs(ctx context.Context) ([]apply.LetterRef, error) {
	l.mayWrite("list of dead letters")
	return l.m.letters.Refs(ctx)
}

func (l *life) LoadState(context.Context) ([]byte, uint64, error) { return l.load(l.name) }

func (l *life) SaveState(_ context.Context, value []byte, revision uint64) (uint64, error) {
	l.mayWrite("save")
	f := l.m.draw(&l.m.saves)
	l.happen(f)
	if f == failBefore || f == crash {
		return 0, errInjected
	}
	n, err := l.save(l.name, value, revision)
	if f == failAfter || f == crashAfter {
		return 0, errInjected
	}
	return n, err
}

func (l *life) Check(ctx context.Context) error {
	l.mayWrite("check")
	return l.m.sink.Check(ctx)
}

func (l *life) Prepare(ctx context.Context, s *cdc.Schema) error {
	l.mayWrite("prepare")
	return l.m.sink.Prepare(ctx, s)
}

// encodedRows counts the batches that came with what Encode had made of them.
var encodedRows atomic.Int64

// Encode implements [apply.Encoder].
func (l *life) Encode(b *apply.TableBatch) any { return rowsText(b) }

// rowsText is what Encode may depend on.
func rowsText(b *apply.TableBatch) string {
	text := fmt.Sprint(b.SyncedAt, b.Schema.Name(), b.Bytes)
	for i := range b.Rows {
		text += rowText(&b.Rows[i])
	}
	return text
}

func (l *life) Apply(ctx context.Context, b *apply.TableBatch) (apply.Result, error) {
	l.mayWrite("load " + b.ID)
	if b.Encoded != nil {
		encodedRows.Add(1)
		if b.Encoded != any(rowsText(b)) {
			l.m.sink.mu.Lock()
			l.m.sink.broken("batch %s comes with what was made of %s, and is %s", b.ID, b.Encoded, rowsText(b))
			l.m.sink.mu.Unlock()
		}
	}
	if l.m.slow {
		<-time.NewTimer(3 * time.Millisecond).C
	}
	f := l.m.draw(&l.m.calls)
	result, err := l.m.sink.Apply(context.WithValue(ctx, faultKey{}, f), b)
	l.happen(f)
	return result, err
}

func (l *life) Truncate(ctx context.Context, tr *apply.TableTruncate) error {
	l.mayWrite("truncate " + tr.ID)
	f := l.m.draw(&l.m.calls)
	err := l.m.sink.Truncate(context.WithValue(ctx, faultKey{}, f), tr)
	l.happen(f)
	return err
}

func (m *model) config(l *life) apply.Config {
	config := apply.Config{FlushBytes: m.flushBytes, MinSpacing: 1, BackoffMax: time.Millisecond, Fence: l.ask}
	if m.letters != nil {
		config.DeadLetters = l
	}
	return config
}

// born starts the next life of live apply.
func (m *model) born() *life {
	l := &life{memStream: m.stream, m: m, done: make(chan error, 1), over: make(chan struct{})}
	ctx, cancel := context.WithCancel(context.Background())
	l.stop = cancel
	l.apply = apply.New(m.config(l), l, l)
	go func() { l.done <- l.apply.Run(ctx) }()
	m.lives = append(m.lives, l)
	return l
}

// run lives until the sink has everything up to the tail.
func (m *model) run(t *rapid.T) {
	defer func() {
		for _, l := range m.lives {
			l.stop()
			if err := <-l.done; err != nil {
				t.Error(err)
			}
		}
		m.lives = nil
	}()
	for {
		l := m.born()
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		context.AfterFunc(ctx, l.end)
		drained := make(chan error, 1)
		go func() { drained <- l.apply.Drain(ctx, m.stream.tail) }()
		var err error
		select {
		case err = <-drained:
		case <-l.over:
			err = errTaken
			if !l.tripped.Load() {
				l.done <- <-l.done // Gone before the next one comes.
			}
		}
		timedOut := errors.Is(ctx.Err(), context.DeadlineExceeded)
		cancel()
		if m.sink.mu.Lock(); m.sink.err != nil {
			t.Fatal(m.sink.err)
		}
		m.sink.mu.Unlock()
		if timedOut {
			t.Fatalf("apply does not end: %+v", l.apply.Status())
		}
		if err == nil {
			return
		}
	}
}

// TestRandomHistoriesReachTheSinkExactlyThroughCrashesAndLostAnswers plays random
// histories, cut into random frames, against a sink that fails, loses answers and
// stops apply at random calls and writes of the state, with others that take over while
// the one before goes on. In the end the sink must equal the source, no batch may have
// been formed in two ways, no version may have gone back, and nobody who was replaced
// may have written anything.
func TestRandomHistoriesReachTheSinkExactlyThroughCrashesAndLostAnswers(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		o := newOracle()
		o.history(t)
		m := newModel(t, o)
		m.run(t)
		o.compare(t, m.sink, nil)
	})
	if encodedRows.Load() == 0 {
		t.Error("no batch was worked on before its turn")
	}
}

// newModel draws what goes wrong.
func newModel(t *rapid.T, o *oracle) *model {
	m := &model{
		stream: o.stream(len(o.frames)), sink: newMemSink(nil),
		calls:      drawFaults(t, "calls", failBefore, failAfter, crash, crashAfter, half, trip),
		saves:      drawFaults(t, "saves", none, none, none, failBefore, failAfter, crash, crashAfter, trip),
		fence:      drawFaults(t, "fence", none, none, none, none, none, none, none, trip),
		flushBytes: rapid.IntRange(1, 200).Draw(t, "flush bytes"),
	}
	m.sink.hard = rapid.Bool().Draw(t, "hard deletes")
	m.slow = rapid.Bool().Draw(t, "slow")
	return m
}

// TestRefusedRowsGoToTheDeadLettersAndTheRestReachesTheSinkExactly is the same with rows
// that the sink refuses. Rows that have letters may differ; once the sink takes all and
// the letters were retried, nothing may.
func TestRefusedRowsGoToTheDeadLettersAndTheRestReachesTheSinkExactly(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		o := newOracle()
		o.history(t)
		m := newModel(t, o)
		m.letters = newMemLetters()
		m.sink.names = rapid.Bool().Draw(t, "names rows")
		refuses, repaired := poison(t), rapid.IntRange(0, 100).Draw(t, "calls before the table is repaired")
		if slices.Contains(slices.Concat(m.calls, m.saves, m.fence), trip) {
			// A call that was on its way when another took over may arrive late. It is
			// refused then as it was before, unless somebody repairs the table just now.
			repaired = math.MaxInt
		}
		m.sink.poison = func(table string, values []string) bool { return m.sink.calls < repaired && refuses(table, values) }
		puts := drawFaults(t, "puts", none, none, failBefore, failAfter)
		m.letters.fail = func() (before, after error) {
			switch m.draw(&puts) {
			case failBefore:
				return errInjected, nil
			case failAfter:
				return nil, errInjected
			default:
				return nil, nil
			}
		}
		m.run(t)
		o.compare(t, m.sink, m.letters.has)
		for _, id := range m.letters.order {
			t.Log(m.letters.letters[id])
		}
		m.sink.poison = nil
		if err := m.letters.retryAll(context.Background(), m.sink); err != nil {
			t.Fatal(err)
		}
		o.compare(t, m.sink, nil)
	})
}

// poison refuses a part of all values of column a.
func poison(t *rapid.T) func(string, []string) bool {
	digits := rapid.SampledFrom([]string{"7", "37", "123456"}).Draw(t, "poison")
	return func(_ string, values []string) bool {
		return values[1] != "" && strings.ContainsAny(values[1][len(values[1])-1:], digits)
	}
}

// has tells whether a row has letters that hold something back.
func (m *memLetters) has(table, key string) bool {
	refs, err := m.Refs(context.Background())
	if err != nil {
		panic(err)
	}
	for _, ref := range refs {
		for _, k := range ref.Keys {
			if ref.Table == table && texts(k)[0] == key && ref.Kind != apply.LetterPassed {
				return true
			}
		}
	}
	return false
}
