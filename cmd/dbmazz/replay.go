package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/dbmazz/dbmazz/apply"
	"github.com/dbmazz/dbmazz/bus"
	"github.com/dbmazz/dbmazz/bus/cdc"
	"github.com/dbmazz/dbmazz/internal/config"
)

// replayCmd applies what the queue still holds again.
type replayCmd struct {
	FromLSN      string   `name:"from-lsn" help:"Begin with the first transaction that committed at this LSN or after it." placeholder:"LSN"`
	FromTime     string   `name:"from-time" help:"Begin with what was committed at this time (RFC 3339), or this long ago (90m)." placeholder:"TIME"`
	FromSeq      uint64   `name:"from-seq" help:"Begin with the frame that has this sequence in the stream." placeholder:"N"`
	All          bool     `help:"Begin with the oldest change that the queue holds."`
	To           string   `help:"End with this LSN or time instead of with what is applied." placeholder:"LSN|TIME"`
	Tables       []string `help:"Replay only these tables (schema.table), separated by commas." placeholder:"TABLE"`
	SinkDatabase string   `name:"sink-database" help:"Write to this database instead of the live tables; it is created when missing." placeholder:"NAME"`
	DryRun       bool     `name:"dry-run" help:"Only count what would be replayed."`
}

// Run replays. It can be stopped at any time; the same command goes on where it was.
func (c *replayCmd) Run(ctx context.Context, s *streams) error {
	return withQueue(ctx, s, config.Apply, func(ctx context.Context, t *tool) error {
		r := replay{tool: t, database: t.config.SinkDatabase}
		if c.SinkDatabase != "" {
			r.database = c.SinkDatabase
		}
		if r.database == t.config.SinkDatabase {
			if err := checkTarget(ctx, t.bus, targetOf(t.config)); err != nil {
				return err
			}
		}
		var err error
		if r.config, err = c.plan(ctx, t, r.database == t.config.SinkDatabase); err != nil {
			return err
		}
		if err := r.known(ctx); err != nil {
			return err
		}
		if c.DryRun {
			return r.explore(ctx)
		}
		return r.run(ctx)
	})
}

// plan turns the flags into positions.
func (c *replayCmd) plan(ctx context.Context, t *tool, live bool) (apply.ReplayConfig, error) {
	out := apply.ReplayConfig{
		Config: apply.Config{
			FlushRows: t.config.FlushSize, FlushInterval: t.config.FlushInterval, FlushBytes: int(t.config.FlushBytes),
			MinSpacing: max(t.config.MinLoadInterval, time.Nanosecond), Grace: t.config.ShutdownTimeout * 2 / 3, Logger: t.log,
		},
		Guarded: live, HardDeletes: t.config.SinkDeleteMode == config.DeleteHard,
		Quiet: t.quiet,
		Live: func(ctx context.Context) (apply.Live, error) {
			data, _, err := bucket{t.bus, keyApply}.LoadState(ctx)
			if err != nil {
				return apply.Live{}, err
			}
			return apply.ParseLive(data)
		},
	}
	tables, err := config.ParseTables(c.Tables...)
	if err != nil {
		return out, fmt.Errorf("--tables: %w", err)
	}
	for _, table := range tables {
		out.Tables = append(out.Tables, table.Schema+"."+table.Name)
	}
	oldest, err := t.bus.Oldest(ctx)
	if errors.Is(err, bus.ErrNoFrames) {
		return out, errors.New("the queue holds nothing to replay")
	}
	if err != nil {
		return out, err
	}
	if out.From, err = c.from(ctx, t.bus, oldest); err != nil {
		return out, err
	}
	out.To, err = c.to(ctx, t, out.From)
	return out, err
}

// from finds the position that the range follows.
func (c *replayCmd) from(ctx context.Context, b *bus.Bus, oldest bus.Mark) (cdc.Position, error) {
	ways := 0
	for _, given := range []bool{c.FromLSN != "", c.FromTime != "", c.FromSeq > 0, c.All} {
		if given {
			ways++
		}
	}
	switch {
	case ways != 1:
		return cdc.Position{}, errors.New("say where to begin: give one of --from-lsn, --from-time, --from-seq and --all")
	case c.FromTime != "":
		at, err := parseTime(c.FromTime)
		if err != nil {
			return cdc.Position{}, fmt.Errorf("--from-time: %w", err)
		}
		mark, err := b.LocateTime(ctx, at)
		return mark.Prev, retained(err)
	case c.FromSeq > 0:
		mark, err := b.MarkAt(ctx, c.FromSeq)
		return mark.Prev, retained(err)
	case c.FromLSN != "":
		lsn, err := cdc.ParseLSN(c.FromLSN)
		if err != nil {
			return cdc.Position{}, fmt.Errorf("--from-lsn: %w", err)
		}
		from := cdc.Position{Commit: lsn}
		if oldest.Sequence > 1 && oldest.Prev.After(from) {
			return from, fmt.Errorf("--from-lsn: what was committed at LSN %s is no longer retained (BUS_RETENTION): the oldest that is follows position %s, has sequence %d and was committed at %s; "+
				"--all begins there", lsn, oldest.Prev, oldest.Sequence, oldest.CommitTime.UTC().Format(time.RFC3339))
		}
		if oldest.Prev.After(from) {
			from = oldest.Prev // The stream has no more than that, and never had.
		}
		return from, nil
	}
	return oldest.Prev, nil
}

// retained adds what to do about a range that is no longer there.
func retained(err error) error {
	if _, purged := errors.AsType[*bus.PurgedError](err); purged {
		return fmt.Errorf("%w; --all begins with the oldest, and BUS_RETENTION says how long changes are kept", err)
	}
	return err
}

// to finds the last position of the range, zero for what is applied.
func (c *replayCmd) to(ctx context.Context, t *tool, from cdc.Position) (cdc.Position, error) {
	if c.To == "" {
		return cdc.Position{}, nil
	}
	if strings.Contains(c.To, "/") {
		lsn, err := cdc.ParseLSN(c.To)
		if err != nil {
			return cdc.Position{}, fmt.Errorf("--to: %w", err)
		}
		return cdc.Position{Commit: lsn, Ordinal: math.MaxUint64}, nil
	}
	at, err := parseTime(c.To)
	if err != nil {
		return cdc.Position{}, fmt.Errorf("--to: %w", err)
	}
	mark, err := t.bus.LocateTime(ctx, at)
	if _, purged := errors.AsType[*bus.PurgedError](err); purged {
		return cdc.Position{}, fmt.Errorf("--to: %w", err)
	}
	if err != nil {
		return cdc.Position{}, err
	}
	if from.After(mark.Prev) {
		mark.Prev = from
	}
	stream := &replayStream{applyStream{Bus: t.bus, log: t.log}}
	last, found, err := apply.LastBefore(ctx, stream, mark.Prev, at)
	switch {
	case err != nil:
		return cdc.Position{}, fmt.Errorf("find the end of the range: %w", err)
	case !found:
		return cdc.Position{}, nil
	case last == from:
		return cdc.Position{}, fmt.Errorf("--to: nothing was committed between the start of the range and %s", at.Format(time.RFC3339Nano))
	}
	return last, nil
}

// parseTime reads a time, or how long ago it was.
func parseTime(text string) (time.Time, error) {
	if ago, err := time.ParseDuration(text); err == nil && ago >= 0 {
		return time.Now().Add(-ago), nil
	}
	for _, form := range []string{time.RFC3339, "2006-01-02T15:04:05", time.DateTime, "2006-01-02T15:04", "2006-01-02 15:04", time.DateOnly} {
		if at, err := time.ParseInLocation(form, text, time.Local); err == nil {
			return at, nil
		}
	}
	return time.Time{}, fmt.Errorf("%q is neither a time such as 2006-01-02T15:04:05Z nor a duration such as 90m", text)
}

// replay is one run of the command.
type replay struct {
	*tool
	config   apply.ReplayConfig
	database string
}

// key names the replay: the same range, tables and target are the same replay, which goes
// on where it was.
func (r *replay) key() string {
	sum := sha256.Sum256(fmt.Append(nil, r.database, "\x00", r.config.From, "\x00", r.config.To, "\x00", strings.Join(r.config.Tables, "\x00")))
	return "replay." + hex.EncodeToString(sum[:8])
}

func (r *replay) stream() *replayStream {
	return &replayStream{applyStream{Bus: r.bus, bucket: bucket{r.bus, r.key()}, log: r.log}}
}

// known refuses the name of a table that is neither configured nor has changes in the
// range: it is a typing error.
func (r *replay) known(ctx context.Context) error {
	if len(r.config.Tables) == 0 {
		return nil
	}
	names, err := tablesOf(ctx, r.stream())
	if err != nil {
		return err
	}
	unknown := func(name string) bool { return !slices.Contains(names, name) }
	if !slices.ContainsFunc(r.config.Tables, unknown) {
		return nil
	}
	s, err := apply.Explore(ctx, r.config, r.stream())
	if err != nil {
		return err
	}
	for name := range s.Tables {
		names = append(names, name)
	}
	for _, name := range r.config.Tables {
		if unknown(name) {
			slices.Sort(names)
			return fmt.Errorf("--tables: table %s is not replicated and has no changes in the range; there are %s", name, strings.Join(slices.Compact(names), ", "))
		}
	}
	return nil
}

// tablesOf returns the names of the tables that capture is set to.
func tablesOf(ctx context.Context, stream *replayStream) ([]string, error) {
	value, _, err := stream.Get(ctx, keyTables)
	if errors.Is(err, bus.ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	schemas, err := stream.tables(ctx, value)
	if err != nil {
		return nil, err
	}
	names := make([]string, len(schemas))
	for i, schema := range schemas {
		names[i] = schema.Namespace + "." + schema.Table
	}
	return names, nil
}

func (r *replay) run(ctx context.Context) error {
	settings := r.tool.config
	settings.SinkDatabase = r.database
	sink, err := newSink(settings, !r.config.Guarded, r.log)
	if err != nil {
		return fmt.Errorf("set up the sink: %w", err)
	}
	first, last, err := r.sequences(ctx)
	if err != nil {
		return err
	}
	before, _, err := bucket{r.bus, r.key()}.LoadState(ctx)
	if err != nil {
		return err
	}
	fmt.Fprintf(r.err, "replaying what follows position %s into database %s%s\n", r.config.From, r.database, r.tablesText())
	stream := r.stream()
	engine := apply.NewReplay(r.config, stream, sink)
	bar := newBar(r.err, func() (float64, string) {
		status := engine.Status()
		done := 0.0
		if at := status.Checkpoint.Sequence; at >= first && last > first {
			done = min(1, float64(at-first)/float64(last-first))
		}
		text := fmt.Sprintf("%s changes, at %s", grouped(status.Changes), status.Checkpoint.Position)
		if status.Err != "" {
			text += ": " + status.Err
		}
		return done, text
	})
	summary, err := engine.Run(ctx)
	bar.stop()
	switch {
	case err == nil:
	case ctx.Err() != nil:
		return fmt.Errorf("stopped at position %s after %s changes; the same command goes on from there", summary.To, grouped(summary.Changes))
	default:
		return fmt.Errorf("%w (the same command goes on from position %s)", err, summary.To)
	}
	// The next time the same range is asked for it begins anew.
	if _, err := r.bus.Put(ctx, r.key(), nil); err != nil {
		return fmt.Errorf("forget the finished replay: %w", err)
	}
	return r.report(summary, len(before) > 0)
}

func (r *replay) tablesText() string {
	if len(r.config.Tables) == 0 {
		return ""
	}
	return ", tables " + strings.Join(r.config.Tables, ", ")
}

// sequences returns where in the stream the range begins and where it ends now.
func (r *replay) sequences(ctx context.Context) (first, last uint64, err error) {
	if first, err = r.bus.Locate(ctx, r.config.From); err != nil {
		return 0, 0, err
	}
	to := r.config.To
	if to.IsZero() {
		newest, err := r.bus.Newest(ctx)
		return first, newest.LastSequence, err
	}
	last, err = r.bus.Locate(ctx, to)
	return first, last, err
}

// report prints what was done; resumed tells that an earlier run had begun it.
func (r *replay) report(s apply.ReplaySummary, resumed bool) error {
	if s.Changes == 0 && resumed {
		_, err := fmt.Fprintf(r.out, "finished what an earlier run had begun, up to position %s\n", s.To)
		return err
	}
	if s.Changes == 0 {
		_, err := fmt.Fprintln(r.out, "nothing to replay in the range")
		return err
	}
	table := tabwriter.NewWriter(r.out, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(table, "table\tchanges\trows sent\t")
	for _, name := range slices.Sorted(maps.Keys(s.Tables)) {
		t := s.Tables[name]
		fmt.Fprintf(table, "%s\t%s\t%s\t\n", name, grouped(t.Changes), grouped(t.Rows))
	}
	if err := table.Flush(); err != nil {
		return fmt.Errorf("print the summary: %w", err)
	}
	_, err := fmt.Fprintf(r.out, "replayed %s changes in %s batches from position %s to %s in %s (%s changes/s)\n",
		grouped(s.Changes), grouped(s.Batches), s.From, s.To, s.Duration.Round(time.Millisecond),
		grouped(uint64(float64(s.Changes)/max(s.Duration.Seconds(), 0.001))))
	if err == nil && r.config.Guarded {
		_, err = fmt.Fprintln(r.out, "rows that have a later version in the sink stayed as they were")
	}
	return err
}

// explore prints what the range holds.
func (r *replay) explore(ctx context.Context) error {
	s, err := apply.Explore(ctx, r.config, r.stream())
	if err != nil {
		return err
	}
	if s.Changes == 0 {
		_, err := fmt.Fprintln(r.out, "nothing to replay in the range")
		return err
	}
	table := tabwriter.NewWriter(r.out, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(table, "table\tinserts\tupdates\tdeletes\ttruncates\tbytes\t")
	for _, name := range slices.Sorted(maps.Keys(s.Tables)) {
		t := s.Tables[name]
		fmt.Fprintf(table, "%s\t%s\t%s\t%s\t%s\t%s\t\n", name, grouped(t.Inserts), grouped(t.Updates), grouped(t.Deletes), grouped(t.Truncates), grouped(t.Bytes))
	}
	if err := table.Flush(); err != nil {
		return fmt.Errorf("print the summary: %w", err)
	}
	_, err = fmt.Fprintf(r.out, "%s changes from position %s (committed %s) to %s (%s); nothing was written\n",
		grouped(s.Changes), s.First, s.FirstTime.Format(time.RFC3339), s.Last, s.LastTime.Format(time.RFC3339))
	return err
}

// replayStream reads beside the consumer of live apply.
type replayStream struct{ applyStream }

// Consumer delivers what follows the sequence.
func (s *replayStream) Consumer(ctx context.Context, after uint64) (apply.Consumer, error) {
	c, err := s.Reader(ctx, after)
	if purged, ok := errors.AsType[*bus.PurgedError](err); ok {
		c, err = s.Reader(ctx, purged.First-1)
	}
	if err != nil {
		return nil, err
	}
	return consumer{c}, nil
}
