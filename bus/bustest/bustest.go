// Package bustest makes frames with known content and checks what comes back, for
// tests of the bus and of those who use it.
package bustest

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"strconv"
	"testing"
	"time"

	"github.com/dbmazz/dbmazz/bus"
	"github.com/dbmazz/dbmazz/bus/cdc"
)

// Open opens a bus that is closed when the test ends. Without a data folder and URL it
// gets a folder of its own; without a logger it logs to the test.
func Open(tb testing.TB, cfg bus.Config) *bus.Bus {
	tb.Helper()
	b, err := TryOpen(tb, cfg)
	if err != nil {
		tb.Fatal(err)
	}
	return b
}

// TryOpen is Open that returns the error.
func TryOpen(tb testing.TB, cfg bus.Config) (*bus.Bus, error) {
	tb.Helper()
	if cfg.Pipeline == "" {
		cfg.Pipeline = "test"
	}
	if cfg.DataDir == "" && cfg.URL == "" {
		cfg.DataDir = tb.TempDir()
	}
	if cfg.DiskReserve == 0 {
		cfg.DiskReserve = -1
	}
	if cfg.Logger == nil {
		cfg.Logger = Logger(tb)
	}
	b, err := bus.New(cfg)
	if err != nil {
		return nil, err
	}
	if err := b.Open(tb.Context()); err != nil {
		return nil, err
	}
	tb.Cleanup(func() { Close(tb, b) })
	return b, nil
}

// Close closes the bus within a minute.
func Close(tb testing.TB, b *bus.Bus) {
	tb.Helper()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(tb.Context()), time.Minute)
	defer cancel()
	if err := b.Close(ctx); err != nil {
		tb.Error(err)
	}
}

// Logger logs to the test.
func Logger(tb testing.TB) *slog.Logger {
	return slog.New(slog.NewTextHandler(tb.Output(), &slog.HandlerOptions{Level: slog.LevelWarn}))
}

// Schema returns the sealed schema of the frames' table: n bigint, payload text.
func Schema() *cdc.Schema {
	s := &cdc.Schema{
		OID: 16384, Namespace: "public", Table: "numbers", ReplicaIdentity: 'd', Key: []int{0},
		Columns: []cdc.Column{
			{Name: "n", Type: cdc.TypeInt8, OID: 20, Mod: -1, BaseMod: -1, TypeName: "bigint", NotNull: true, Identity: true},
			{Name: "payload", Type: cdc.TypeText, OID: 25, Mod: -1, BaseMod: -1, TypeName: "text"},
		},
	}
	if err := s.Seal(); err != nil {
		panic(err)
	}
	return s
}

// Source makes frames of numbered transactions, as capture does. Transaction k has one
// row, with the number k, and commits at LSN 1000*k.
type Source struct {
	w      *cdc.Writer
	schema *cdc.Schema
	next   uint64
}

// NewSource returns a source that goes on behind the tail of a stream.
func NewSource(epoch string, tail cdc.Tail) *Source {
	return &Source{w: cdc.NewWriter(epoch, tail.Last, tail.End), schema: Schema(), next: uint64(tail.Last.Commit)/1000 + 1}
}

// Next returns the number of the next transaction.
func (s *Source) Next() uint64 { return s.next }

// Frame makes a frame of so many transactions whose rows have a payload of that size.
// It allocates a buffer of its own.
func (s *Source) Frame(transactions, payload int) ([]byte, cdc.Header) {
	s.w.Reset(make([]byte, 0, 1024+transactions*(payload+100)))
	for range transactions {
		lsn := cdc.LSN(1000 * s.next)
		text := strconv.FormatUint(s.next, 10)
		s.w.Begin(lsn, int64(s.next)*1_000_000, uint32(s.next)) //nolint:gosec // Small numbers.
		s.w.Insert(s.schema)
		s.w.StartTuple(2)
		s.w.Text([]byte(text))
		s.w.Text(payloadOf(text, payload))
		s.w.Commit(lsn + 1)
		s.next++
	}
	data, header, err := s.w.Seal()
	if err != nil {
		panic(err)
	}
	return data, header
}

// payloadOf makes bytes of the text, always the same, that no packing makes smaller: what
// frames are in the tests of the bus is as large as the tests say.
func payloadOf(text string, size int) []byte {
	seed := sha256.Sum256([]byte(text))
	payload := make([]byte, size)
	_, _ = rand.NewChaCha8(seed).Read(payload) // It never fails.
	return payload
}

// Checker verifies that frames hold every number once and in order.
type Checker struct {
	Epoch    string
	Position cdc.Position // of the last change that was seen
	Count    uint64       // the last number that was seen
	Frames   int
	Skipped  uint64 // changes at or before Position, as after a start behind it
	schema   *cdc.Schema
}

// Frame checks one frame. Changes at or before the position are skipped, as apply does.
func (c *Checker) Frame(data []byte) error {
	f, err := cdc.Open(data)
	if err != nil {
		return err
	}
	if c.schema == nil {
		c.schema = Schema()
	}
	if f.Header.Epoch != c.Epoch {
		return fmt.Errorf("frame of epoch %q instead of %q", f.Header.Epoch, c.Epoch)
	}
	if f.Header.Prev.After(c.Position) {
		return fmt.Errorf("frame follows %s, the last change was %s", f.Header.Prev, c.Position)
	}
	schemas := make([]*cdc.Schema, len(f.Header.Schemas))
	for i := range schemas {
		schemas[i] = c.schema
	}
	r, err := f.Reader(schemas)
	if err != nil {
		return err
	}
	var rec cdc.Record
	for {
		ok, err := r.Next(&rec)
		if err != nil {
			return err
		}
		if !ok {
			c.Frames++
			return nil
		}
		if rec.Kind != cdc.KindInsert {
			continue
		}
		if err := c.row(&rec); err != nil {
			return err
		}
	}
}

func (c *Checker) row(rec *cdc.Record) error {
	if !rec.Position.After(c.Position) {
		c.Skipped++
		return nil
	}
	v, rest, _ := rec.New.Next()
	n, err := strconv.ParseUint(string(v.Bytes), 10, 64)
	if err != nil {
		return err
	}
	if n != c.Count+1 {
		return fmt.Errorf("number %d after %d", n, c.Count)
	}
	p, _, _ := rest.Next()
	if !bytes.Equal(p.Bytes, payloadOf(string(v.Bytes), len(p.Bytes))) {
		return fmt.Errorf("payload of number %d was altered", n)
	}
	c.Count, c.Position = n, rec.Position
	return nil
}

// Read reads frames until the number has come, and checks them.
func (c *Checker) Read(ctx context.Context, consumer *bus.Consumer, upTo uint64) (last bus.Message, err error) {
	for c.Count < upTo {
		if last, err = consumer.Next(ctx); err != nil {
			return last, fmt.Errorf("read after number %d: %w", c.Count, err)
		}
		if err := c.Frame(last.Data); err != nil {
			return last, fmt.Errorf("sequence %d: %w", last.Sequence, err)
		}
	}
	if c.Count != upTo {
		return last, errors.New("read too far")
	}
	return last, nil
}
