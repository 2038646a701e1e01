package bus_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/dbmazz/dbmazz/bus"
	"github.com/dbmazz/dbmazz/bus/bustest"
)

func letter(id, reason string, size int) bus.Letter {
	return bus.Letter{
		ID:     id,
		Header: map[string]string{"Table": "public.orders", "Key": "id=" + id, "Reason": reason},
		Data:   bytes.Repeat([]byte(id[:1]), size),
	}
}

// awkward are letters that a header or one message cannot hold as they are.
func awkward() []bus.Letter {
	return []bus.Letter{
		letter("plain", "too long", 100),
		letter(`"quoted"`, strings.Repeat("r", 4096), 1),
		{ID: "many", Header: many(), Data: []byte("x")},
		letter("empty", "", 0),
		{ID: "no header"},
		{ID: "line\r\nbreaks \x00\xff", Header: map[string]string{"Key": "a\r\nNats-Rollup: all\n", "Reason": " spaces ", "X": "\xc3\x28"}, Data: []byte{0, 1}},
		{ID: strings.Repeat("i", 1024), Header: map[string]string{"Key": strings.Repeat("k", 200<<10)}, Data: []byte("long key")},
		letter("large", "split", 3<<20),
		{ID: "large and awkward", Header: map[string]string{"Key": strings.Repeat("\n", 1<<20-3)}, Data: bytes.Repeat([]byte("x"), 9<<20)},
	}
}

// many returns headers that fit each, but not together.
func many() map[string]string {
	header := map[string]string{}
	for i := range 40 {
		header[fmt.Sprint("Name-", i)] = strings.Repeat("v", 4000)
	}
	return header
}

func testLettersComeBackAsTheyWere(t *testing.T, cfg bus.Config) {
	ctx := bounded(t)
	b := bustest.Open(t, cfg)
	letters := b.DeadLetters()
	if all, err := letters.List(ctx, 0, 10); err != nil || len(all) != 0 {
		t.Errorf("before the first there are %d, %v", len(all), err)
	}
	if n, err := letters.Count(ctx); err != nil || n != 0 {
		t.Errorf("before the first Count says %d, %v", n, err)
	}
	if _, err := letters.Get(ctx, "plain"); !errors.Is(err, bus.ErrNotFound) {
		t.Errorf("before the first: %v", err)
	}
	if err := letters.Delete(ctx, "plain"); err != nil {
		t.Error(err)
	}
	want := awkward()
	for round := range 2 { // The second time nothing changes.
		for i := range want {
			if err := b.DeadLetters().Put(ctx, want[i]); err != nil {
				t.Fatalf("round %d: %v", round, err)
			}
		}
	}
	var listed []bus.Letter
	for after := uint64(0); ; after = listed[len(listed)-1].Sequence {
		page, err := letters.List(ctx, after, 3)
		if err != nil {
			t.Fatal(err)
		}
		if listed = append(listed, page...); len(page) < 3 {
			break
		}
	}
	if n, err := letters.Count(ctx); err != nil || n != uint64(len(want)) || len(listed) != len(want) {
		t.Fatalf("%d letters are listed, Count says %d, %v", len(listed), n, err)
	}
	for i, w := range want {
		got, err := letters.Get(ctx, w.ID)
		if err != nil {
			t.Fatal(err)
		}
		if time.Since(got.StoredAt) > time.Minute || got.Bytes != len(w.Data) || got.Sequence == 0 {
			t.Errorf("letter %d was stored at %s as %d with %d bytes", i, got.StoredAt, got.Sequence, got.Bytes)
		}
		head := got
		head.Data = nil
		if diff := cmp.Diff(head, listed[i]); diff != "" {
			t.Errorf("letter %d is listed differently: %s", i, diff)
		}
		if got.ID != w.ID || !bytes.Equal(got.Data, w.Data) || len(got.Header) != len(w.Header) {
			t.Errorf("letter %d came back otherwise", i)
		}
		for name, value := range w.Header {
			if got.Header[name] != value {
				t.Errorf("letter %d: header %s came back otherwise", i, name)
			}
		}
	}
}

func testLettersArePutOnce(t *testing.T, cfg bus.Config) {
	ctx := bounded(t)
	b := bustest.Open(t, cfg)
	letters := b.DeadLetters()
	for _, size := range []int{10, 9 << 20} {
		l := letter(fmt.Sprint("id of ", size), "reason", size)
		if err := letters.Put(ctx, l); err != nil {
			t.Fatal(err)
		}
		for name, change := range map[string]func(*bus.Letter){
			"data":   func(l *bus.Letter) { l.Data = append(bytes.Clone(l.Data), '!') },
			"header": func(l *bus.Letter) { l.Header = maps.Clone(l.Header); l.Header["Reason"] = "other" },
		} {
			other := l
			change(&other)
			if err := letters.Put(ctx, other); !errors.Is(err, bus.ErrLetterExists) {
				t.Errorf("a letter with other %s: %v", name, err)
			}
		}
		if got, err := letters.Get(ctx, l.ID); err != nil || !bytes.Equal(got.Data, l.Data) {
			t.Errorf("the first one is gone: %v", err)
		}
		for range 2 {
			if err := letters.Delete(ctx, l.ID); err != nil {
				t.Error(err)
			}
		}
		if _, err := letters.Get(ctx, l.ID); !errors.Is(err, bus.ErrNotFound) {
			t.Errorf("after Delete: %v", err)
		}
		if n, err := bus.LetterMessages(ctx, b); err != nil || n != 0 {
			t.Errorf("after Delete %d messages are left, %v", n, err)
		}
		if err := letters.Put(ctx, l); err != nil {
			t.Errorf("after Delete: %v", err)
		}
		if err := letters.Delete(ctx, l.ID); err != nil {
			t.Error(err)
		}
	}
	for _, l := range []bus.Letter{
		{},
		{ID: strings.Repeat("i", 1025)},
		{ID: "x", Header: map[string]string{"a b": ""}},
		{ID: "x", Header: map[string]string{"": ""}},
		{ID: "x", Header: map[string]string{"nats-rollup": "all"}},
		{ID: "x", Header: map[string]string{"Dbmazz-Letter-Id": "y"}},
		{ID: "x", Header: map[string]string{"Key": strings.Repeat("k", 1<<20)}},
	} {
		if err := letters.Put(ctx, l); err == nil {
			t.Errorf("%.80v was accepted", l)
		}
	}
}

func testLettersAreNotDiscarded(t *testing.T, cfg bus.Config) {
	ctx := bounded(t)
	cfg.DeadLetterBytes = 10 << 20
	b := bustest.Open(t, cfg)
	letters := b.DeadLetters()
	var err error
	stored := 0
	for ; err == nil && stored < 100; stored++ {
		err = letters.Put(ctx, letter(fmt.Sprint(stored), "reason", 2<<20))
	}
	stored--
	if !errors.Is(err, bus.ErrLettersFull) || !strings.Contains(err.Error(), "dbmazz dlq") || stored != 4 {
		t.Fatalf("after %d letters: %v", stored, err)
	}
	if err := letters.Put(ctx, letter("0", "reason", 2<<20)); err != nil {
		t.Errorf("a letter that is there: %v", err)
	}
	if n, err := letters.Count(ctx); err != nil || n != uint64(stored) { //nolint:gosec // Small.
		t.Errorf("%d letters are left of %d, %v", n, stored, err)
	}
	if err := letters.Delete(ctx, "0"); err != nil {
		t.Fatal(err)
	}
	// What does not fit leaves nothing behind, although its first parts did.
	before, err := bus.LetterMessages(ctx, b)
	if err != nil {
		t.Fatal(err)
	}
	if err := letters.Put(ctx, letter("large", "reason", 20<<20)); !errors.Is(err, bus.ErrLettersFull) {
		t.Errorf("a letter that is larger than the room: %v", err)
	}
	if n, err := bus.LetterMessages(ctx, b); err != nil || n != before {
		t.Errorf("%d messages after %d, %v", n, before, err)
	}
	if err := letters.Put(ctx, letter("after", "reason", 2<<20)); err != nil {
		t.Error(err)
	}
}

// TestPeopleCanReadLettersWithTheirOwnTool reads the messages as the nats tool does.
func TestPeopleCanReadLettersWithTheirOwnTool(t *testing.T) {
	t.Parallel()
	ctx := bounded(t)
	url := externalServer(t)
	b := bustest.Open(t, bus.Config{URL: url})
	if err := b.DeadLetters().Put(ctx, letter("17", "Data too long", 3)); err != nil {
		t.Fatal(err)
	}
	nc, err := nats.Connect(url)
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	js, err := jetstream.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	stream, err := js.Stream(ctx, "DBMAZZ_test_DLQ")
	if err != nil {
		t.Fatal(err)
	}
	m, err := stream.GetMsg(ctx, 1)
	if err != nil {
		t.Fatal(err)
	}
	if m.Header.Get("Table") != "public.orders" || m.Header.Get("Key") != "id=17" || m.Header.Get("Reason") != "Data too long" ||
		m.Header.Get("Dbmazz-Letter-Id") != "17" || string(m.Data) != "111" {
		t.Errorf("a person sees %v %q", m.Header, m.Data)
	}
}

// TestLettersSurviveARestartOfTheServer puts while the server is replaced.
func TestLettersSurviveARestartOfTheServer(t *testing.T) {
	t.Parallel()
	ctx := bounded(t)
	b := bustest.Open(t, bus.Config{})
	bus.SetPatience(b, 2*time.Second)
	letters := b.DeadLetters()
	failed := make(chan error, 1)
	go func() {
		for i := range 60 {
			size := 100
			if i%20 == 0 {
				size = 9 << 20
			}
			if err := putUntilStored(ctx, letters, letter(fmt.Sprint(i), "reason", size)); err != nil {
				failed <- err
				return
			}
		}
		failed <- nil
	}()
	for range 3 {
		<-time.After(100 * time.Millisecond)
		if err := bus.RestartServer(ctx, b); err != nil {
			t.Fatal(err)
		}
	}
	if err := <-failed; err != nil {
		t.Fatal(err)
	}
	if n, err := letters.Count(ctx); err != nil || n != 60 {
		t.Errorf("%d letters, %v", n, err)
	}
	for i := range 60 {
		if _, err := letters.Get(ctx, fmt.Sprint(i)); err != nil {
			t.Error(err)
		}
	}
}

func putUntilStored(ctx context.Context, letters *bus.DeadLetters, l bus.Letter) error {
	err := letters.Put(ctx, l)
	for err != nil && ctx.Err() == nil && !errors.Is(err, bus.ErrLetterExists) {
		err = letters.Put(ctx, l)
	}
	return err
}

// TestHalfALetterIsNoLetter takes away what a crash in the middle of Put or Delete leaves
// out.
func TestHalfALetterIsNoLetter(t *testing.T) {
	t.Parallel()
	ctx := bounded(t)
	b := bustest.Open(t, bus.Config{})
	letters := b.DeadLetters()
	large := letter("large", "reason", 9<<20)
	if err := letters.Put(ctx, large); err != nil {
		t.Fatal(err)
	}
	// Parts without a head: a Put that was cut off.
	if err := bus.RemoveLetterHead(ctx, b, "large"); err != nil {
		t.Fatal(err)
	}
	if n, err := letters.Count(ctx); err != nil || n != 0 {
		t.Errorf("Count says %d, %v", n, err)
	}
	if all, err := letters.List(ctx, 0, 10); err != nil || len(all) != 0 {
		t.Errorf("%d are listed, %v", len(all), err)
	}
	if err := letters.Put(ctx, large); err != nil {
		t.Error(err)
	}
	if got, err := letters.Get(ctx, "large"); err != nil || !bytes.Equal(got.Data, large.Data) {
		t.Errorf("after Put: %v", err)
	}
	odd := bus.Letter{ID: "\n", Header: map[string]string{"Key": strings.Repeat("k", 1<<20-3)}, Data: large.Data}
	if err := letters.Put(ctx, odd); err != nil {
		t.Fatal(err)
	}
	// A head without its parts: a Delete that was cut off.
	if err := bus.RemoveLetterParts(ctx, b); err != nil {
		t.Fatal(err)
	}
	if _, err := letters.Get(ctx, "large"); err == nil || errors.Is(err, bus.ErrNotFound) {
		t.Errorf("half a letter: %v", err)
	}
	if all, err := letters.List(ctx, 0, 10); err != nil || len(all) != 2 || !all[1].Damaged || all[1].ID != "\n" {
		t.Errorf("%d are listed, %v", len(all), err)
	}
	for _, id := range []string{"large", "\n"} {
		if err := letters.Delete(ctx, id); err != nil {
			t.Error(err)
		}
	}
	if n, err := bus.LetterMessages(ctx, b); err != nil || n != 0 {
		t.Errorf("%d messages are left, %v", n, err)
	}
}

func TestUnfitLetterStreamIsRefused(t *testing.T) {
	t.Parallel()
	for name, spoil := range map[string]func(*jetstream.StreamConfig){
		"memory":      func(c *jetstream.StreamConfig) { c.Storage = jetstream.MemoryStorage },
		"discard old": func(c *jetstream.StreamConfig) { c.Discard = jetstream.DiscardOld },
		"age":         func(c *jetstream.StreamConfig) { c.MaxAge = time.Hour },
		"replaces":    func(c *jetstream.StreamConfig) { c.MaxMsgsPerSubject = 1 },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ctx := bounded(t)
			url := externalServer(t)
			b := bustest.Open(t, bus.Config{URL: url})
			nc, err := nats.Connect(url)
			if err != nil {
				t.Fatal(err)
			}
			defer nc.Close()
			js, err := jetstream.New(nc)
			if err != nil {
				t.Fatal(err)
			}
			cfg := jetstream.StreamConfig{
				Name: "DBMAZZ_test_DLQ", Subjects: []string{"dbmazz.test.dlq.>"}, Storage: jetstream.FileStorage, Discard: jetstream.DiscardNew,
			}
			spoil(&cfg)
			if _, err := js.CreateStream(ctx, cfg); err != nil {
				t.Fatal(err)
			}
			if err := b.DeadLetters().Put(ctx, letter("x", "", 1)); err == nil || !strings.Contains(err.Error(), "DBMAZZ_test_DLQ") {
				t.Errorf("got %v", err)
			}
		})
	}
}

// TestListIsOnePullForManyLetters lists more than one page of letters.
func TestListIsOnePullForManyLetters(t *testing.T) {
	t.Parallel()
	ctx := bounded(t)
	b := bustest.Open(t, bus.Config{URL: externalServer(t)}) // It does not sync each letter.
	letters := b.DeadLetters()
	const n = 700
	for i := range n {
		if err := letters.Put(ctx, letter(fmt.Sprint(i), "reason", 10)); err != nil {
			t.Fatal(err)
		}
	}
	all, err := letters.List(ctx, 0, n+1)
	if err != nil || len(all) != n {
		t.Fatalf("%d are listed, %v", len(all), err)
	}
	for i, l := range all {
		if l.ID != fmt.Sprint(i) || l.Header["Key"] != "id="+l.ID || l.Bytes != 10 || l.Damaged {
			t.Fatalf("letter %d is listed as %+v", i, l)
		}
	}
	if some, err := letters.List(ctx, all[99].Sequence, 300); err != nil || len(some) != 300 || some[299].ID != "399" {
		t.Errorf("%d are listed, %v", len(some), err)
	}
	if none, err := letters.List(ctx, all[n-1].Sequence, 10); err != nil || len(none) != 0 {
		t.Errorf("%d are listed, %v", len(none), err)
	}
}
