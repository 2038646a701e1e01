package bus_test

import (
	"errors"
	"strconv"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"

	"github.com/dbmazz/dbmazz/bus"
	"github.com/dbmazz/dbmazz/bus/bustest"
	"github.com/dbmazz/dbmazz/bus/cdc"
)

// conformance lists what holds for every server that a bus runs on.
var conformance = map[string]func(*testing.T, bus.Config){
	"FramesComeBackInOrder":           testFramesComeBackInOrder,
	"LargeFrameIsSplitAndReassembled": testLargeFrameIsSplitAndReassembled,
	"FullStreamHolds":                 testFullStreamHolds,
	"StoredGivesBuffersBackInOrder":   testStoredGivesBuffersBackInOrder,
	"StateIsComparedAndSet":           testStateIsComparedAndSet,
	"WatchBeginsWithTheCurrentValue":  testWatchBeginsWithTheCurrentValue,
	"SchemaIsVerified":                testSchemaIsVerified,
	"ConsumerStartsAfterASequence":    testConsumerStartsAfterASequence,
	"ConsumerIsReplacedByTheNext":     testConsumerIsReplacedByTheNext,
	"LocateFindsThePosition":          testLocateFindsThePosition,
	"JanitorKeepsWhatItMust":          testJanitorKeepsWhatItMust,
	"FrameOutOfChainIsRefused":        testFrameOutOfChainIsRefused,
	"MessagesNameTheirPredecessor":    testMessagesNameTheirPredecessor,
	"EpochSurvivesReopening":          testEpochSurvivesReopening,
	"BoardShowsWhoIsThere":            testBoardShowsWhoIsThere,
	"BoardTakesLargeValues":           testBoardTakesLargeValues,
	"HoldsAreSeen":                    testHoldsAreSeen,
	"MarksDescribeFrames":             testMarksDescribeFrames,
	"TimesAreLocated":                 testTimesAreLocated,
	"ReaderDisturbsNobody":            testReaderDisturbsNobody,
	"ReaderHoldsTheHistory":           testReaderHoldsTheHistory,
	"LettersComeBackAsTheyWere":       testLettersComeBackAsTheyWere,
	"LeasesTellDeletedFromNeverThere": testLeasesTellDeletedFromNeverThere,
	"LeadershipMovesOverTheBus":       testLeadershipMovesOverTheBus,
	"LettersArePutOnce":               testLettersArePutOnce,
	"LettersAreNotDiscarded":          testLettersAreNotDiscarded,
}

func TestEmbedded(t *testing.T) {
	t.Parallel()
	for name, test := range conformance {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test(t, bus.Config{Pipeline: "test", DataDir: t.TempDir()})
		})
	}
}

func TestExternal(t *testing.T) {
	t.Parallel()
	for name, test := range conformance {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test(t, bus.Config{Pipeline: "test", URL: externalServer(t)})
		})
	}
}

// externalServer starts a server with a listener and the usual 1 MiB limit.
func externalServer(t *testing.T) string {
	t.Helper()
	s, err := server.NewServer(&server.Options{Host: "127.0.0.1", Port: -1, JetStream: true, StoreDir: t.TempDir(), NoSigs: true})
	if err != nil {
		t.Fatal(err)
	}
	go s.Start()
	if !s.ReadyForConnections(10 * time.Second) {
		t.Fatal("server is not ready")
	}
	t.Cleanup(func() {
		s.Shutdown()
		s.WaitForShutdown()
	})
	return s.ClientURL()
}

func TestSecondWriterIsFenced(t *testing.T) {
	t.Parallel()
	testSecondWriterIsFenced(t, bus.Config{URL: externalServer(t)})
}

func testSecondWriterIsFenced(t *testing.T, cfg bus.Config) {
	t.Helper()
	ctx := bounded(t)
	one := bustest.Open(t, cfg)
	two := bustest.Open(t, cfg)
	p1, err := one.Publisher(ctx)
	if err != nil {
		t.Fatal(err)
	}
	defer p1.Close()
	p2, err := two.Publisher(ctx)
	if err != nil {
		t.Fatal(err)
	}
	defer p2.Close()
	// Both send as fast as they can: only expected sequences would let the
	// messages of one slip in behind those of the other.
	r1 := flood(ctx, p1, bustest.NewSource(one.Epoch(), cdc.Tail{}), 400, 500)
	r2 := flood(ctx, p2, bustest.NewSource(two.Epoch(), cdc.Tail{}), 400, 500)
	err1, err2 := <-r1, <-r2
	if (err1 == nil) == (err2 == nil) || !errors.Is(errors.Join(err1, err2), bus.ErrFenced) {
		t.Fatalf("the writers ended with %v and %v; want one of them fenced", err1, err2)
	}
	readAll(t, one, 0, 400)
	info, err := one.Info(ctx)
	if err != nil || info.LastSequence != 400 {
		t.Errorf("%d messages are stored, %v", info.LastSequence, err)
	}
}

func testFrameOutOfChainIsRefused(t *testing.T, cfg bus.Config) {
	ctx := bounded(t)
	b := bustest.Open(t, cfg)
	publish(t, b, 3, 10)
	p, err := b.Publisher(ctx)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	s := bustest.NewSource(b.Epoch(), cdc.Tail{Last: cdc.Position{Commit: 4000, Ordinal: 1}, End: 4001})
	data, h := s.Frame(1, 10)
	if err := p.Publish(ctx, data, h, nil); err == nil {
		err = p.Flush(ctx)
		if err == nil {
			t.Error("a frame that leaves out number 4 was stored")
		}
	}
	// What was lost with the end of the stream may be left out, by the first frame only.
	if p, err = b.Publisher(ctx); err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	for i, want := range []bool{true, false} {
		at := cdc.LSN(6000 + 2000*i) //nolint:gosec // Small.
		data, h := bustest.NewSource(b.Epoch(), cdc.Tail{Last: cdc.Position{Commit: at}, End: at}).Frame(1, 10)
		err := p.Publish(ctx, data, h, nil)
		if err == nil {
			err = p.Flush(ctx)
		}
		if (err == nil) != want {
			t.Errorf("frame %d of a session, which declares a hole: %v", i+1, err)
		}
	}
	other := bustest.NewSource("another", cdc.Tail{})
	data, h = other.Frame(1, 10)
	if err := p.Publish(ctx, data, h, nil); err == nil {
		t.Error("a frame of another epoch was accepted")
	}
}

func testEpochSurvivesReopening(t *testing.T, cfg bus.Config) {
	b, err := bustest.TryOpen(t, cfg)
	if err != nil {
		t.Fatal(err)
	}
	publish(t, b, 3, 10)
	epoch := b.Epoch()
	bustest.Close(t, b)
	cfg.MaxBytes = 123 << 20
	b = bustest.Open(t, cfg)
	info, err := b.Info(t.Context())
	if err != nil || b.Epoch() != epoch || epoch == "" || info.MaxBytes != 123<<20 || info.Messages != 3 {
		t.Errorf("epoch %q after %q, %+v, %v", b.Epoch(), epoch, info, err)
	}
	publish(t, b, 3, 10)
	readAll(t, b, 0, 6)
}

// testMessagesNameTheirPredecessor: only the id in each message keeps out a second
// writer whose later messages find their expected sequence.
func testMessagesNameTheirPredecessor(t *testing.T, cfg bus.Config) {
	ctx := bounded(t)
	b := bustest.Open(t, cfg)
	publish(t, b, 5, 10)
	publish(t, b, 2, 9<<20)
	tail, err := b.Tail(ctx)
	if err != nil {
		t.Fatal(err)
	}
	before := ""
	for sequence := uint64(1); sequence <= tail.Sequence; sequence++ {
		h, err := bus.ReadHeader(ctx, b, sequence)
		if err != nil {
			t.Fatal(err)
		}
		if got := h.Get("Nats-Expected-Last-Msg-Id"); got != before {
			t.Errorf("sequence %d follows %q, want %q", sequence, got, before)
		}
		if before = h.Get("Nats-Msg-Id"); before == "" {
			t.Errorf("sequence %d has no id", sequence)
		}
		if got := h.Get("Nats-Expected-Last-Sequence"); got != strconv.FormatUint(sequence-1, 10) {
			t.Errorf("sequence %d expects %s before it", sequence, got)
		}
	}
}
