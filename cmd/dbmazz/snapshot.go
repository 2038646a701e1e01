package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"google.golang.org/grpc/metadata"

	"github.com/dbmazz/dbmazz/internal/config"
	pb "github.com/dbmazz/dbmazz/proto/dbmazz"
)

// snapshotCmd asks a running pipeline, over its API, to copy existing rows.
type snapshotCmd struct {
	Tables []string `help:"Tables to copy (schema.table), separated by commas; all if none is given." placeholder:"TABLE"`
	Pause  bool     `help:"Hold the copy that runs." xor:"what"`
	Resume bool     `help:"Go on with a copy that is held." xor:"what"`
	Detach bool     `help:"Do not wait for the end."`
}

// Run makes the call and shows the progress until the copy is done.
func (s *snapshotCmd) Run(ctx context.Context, out *streams) error {
	c, _, err := load(out.environ, 0)
	if err != nil {
		return err
	}
	wanted, err := config.ParseTables(s.Tables...)
	if err != nil {
		return fmt.Errorf("--tables: %w", err)
	}
	conn, err := dial(c)
	if err != nil {
		return err
	}
	defer conn.Close()
	ctx = withToken(ctx, c)
	watch := &copyWatch{client: pb.NewCdcStatusServiceClient(conn), before: map[string]int64{}, said: map[string]string{}, out: out}
	starts := !s.Pause && !s.Resume
	if starts {
		watch.tables = tableNames(captureTables(wanted))
		if err := watch.remember(ctx); err != nil {
			return fmt.Errorf("ask %s: %w", c.GRPCAddr, err)
		}
	}
	answer, err := s.call(ctx, pb.NewCdcControlServiceClient(conn))
	if err != nil {
		return fmt.Errorf("ask %s: %w", c.GRPCAddr, err)
	}
	if !answer.GetSuccess() {
		return errors.New(answer.GetMessage())
	}
	fmt.Fprintln(out.stdout, answer.GetMessage())
	if s.Pause || s.Detach {
		return nil
	}
	return watch.wait(ctx)
}

func (s *snapshotCmd) call(ctx context.Context, control pb.CdcControlServiceClient) (*pb.ControlResponse, error) {
	switch {
	case s.Pause:
		return control.PauseSnapshot(ctx, &pb.PauseSnapshotRequest{})
	case s.Resume:
		return control.ResumeSnapshot(ctx, &pb.ResumeSnapshotRequest{})
	}
	return control.StartSnapshot(ctx, &pb.StartSnapshotRequest{Tables: s.Tables})
}

// withToken adds what every call must carry.
func withToken(ctx context.Context, c config.Config) context.Context {
	if c.GRPCToken.IsZero() {
		return ctx
	}
	return metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer "+c.GRPCToken.Reveal())
}

// copyWatch shows how far the copy of tables is.
type copyWatch struct {
	client pb.CdcStatusServiceClient
	tables []string // empty means all
	// before is when the copy of a table had ended before this one was asked for. The
	// process that is asked may have heard of this one only later.
	before map[string]int64
	said   map[string]string // errors, by table
	out    *streams
}

// remember notes when the last copies ended.
func (w *copyWatch) remember(ctx context.Context) error {
	now, err := w.client.GetStatus(ctx, &pb.StatusRequest{})
	for _, t := range now.GetTableProgress() {
		w.before[t.GetTableName()] = t.GetFinishedAtUnixMs()
	}
	if len(w.tables) == 0 {
		w.tables = now.GetTables()
	}
	return err
}

// wait shows the progress until the copy is done or held.
func (w *copyWatch) wait(ctx context.Context) error {
	var status *pb.StatusResponse
	bar := newBar(w.out.stderr, func() (float64, string) {
		if next, err := w.client.GetStatus(ctx, &pb.StatusRequest{}); err == nil {
			status = next
		}
		p := w.progress(status)
		return p.share(), p.text(status)
	})
	defer bar.stop()
	for began := time.Now(); ; {
		now, err := w.client.GetStatus(ctx, &pb.StatusRequest{})
		if err != nil && ctx.Err() == nil {
			return fmt.Errorf("follow the copy: %w", err)
		}
		p := w.progress(now)
		switch {
		case ctx.Err() != nil:
			return nil // The copy goes on without being watched.
		case now.GetSnapshotPaused() && time.Since(began) > hearsay:
			_, err := fmt.Fprintln(w.out.stdout, "the copy is held; dbmazz snapshot --resume goes on")
			return err
		case p.done == p.tables && p.tables > 0:
			_, err := fmt.Fprintf(w.out.stdout, "copied %s rows of %d tables in %s\n", grouped(p.rows), p.tables, time.Since(began).Round(time.Millisecond))
			return err
		}
		w.complain(now)
		pause(ctx, 500*time.Millisecond)
	}
}

// hearsay is how long the process that is asked may not have heard that a copy that was
// held goes on.
const hearsay = 3 * announceEvery

// complain prints an error of a table once. The copy is tried again.
func (w *copyWatch) complain(now *pb.StatusResponse) {
	for _, t := range now.GetTableProgress() {
		if problem := t.GetError(); problem != "" && problem != w.said[t.GetTableName()] {
			w.said[t.GetTableName()] = problem
			fmt.Fprintf(w.out.stderr, "\n%s is tried again: %s\n", t.GetTableName(), problem)
		}
	}
}

// copyProgress is how far the tables are that were asked for.
type copyProgress struct {
	tables, done int
	rows, total  uint64
	waiting      string
}

func (w *copyWatch) progress(now *pb.StatusResponse) (p copyProgress) {
	for _, t := range now.GetTableProgress() {
		if len(w.tables) > 0 && !slices.Contains(w.tables, t.GetTableName()) || t.GetState() == "none" {
			continue
		}
		p.tables++
		p.total += t.GetRowsEstimated()
		switch {
		case t.GetState() == "done" && t.GetFinishedAtUnixMs() == w.before[t.GetTableName()] && t.GetFinishedAtUnixMs() != 0:
			// That was the copy before this one.
			continue
		case t.GetState() == "done":
			p.done++
		}
		p.rows += t.GetRowsSynced()
		if t.GetWaitingFor() != "" {
			p.waiting = t.GetTableName() + " waits: " + t.GetWaitingFor()
		}
	}
	return p
}

func (p *copyProgress) share() float64 {
	if p.total == 0 {
		return 0
	}
	return min(1, float64(p.rows)/float64(p.total))
}

func (p *copyProgress) text(now *pb.StatusResponse) string {
	text := fmt.Sprintf("%s of about %s rows, %d of %d tables, %s rows/s", grouped(p.rows), grouped(p.total), p.done, p.tables, grouped(uint64(now.GetSnapshotRowsPerSecond())))
	if p.waiting != "" {
		text += "  " + p.waiting
	}
	return text
}
