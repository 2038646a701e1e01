package main

import (
	"context"
	"errors"
	"fmt"
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
	conn, err := dial(c)
	if err != nil {
		return err
	}
	defer conn.Close()
	ctx = withToken(ctx, c)
	control := pb.NewCdcControlServiceClient(conn)
	var answer *pb.ControlResponse
	switch {
	case s.Pause:
		answer, err = control.PauseSnapshot(ctx, &pb.PauseSnapshotRequest{})
	case s.Resume:
		answer, err = control.ResumeSnapshot(ctx, &pb.ResumeSnapshotRequest{})
	default:
		answer, err = control.StartSnapshot(ctx, &pb.StartSnapshotRequest{Tables: s.Tables})
	}
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
	return s.wait(ctx, pb.NewCdcStatusServiceClient(conn), out)
}

// withToken adds what every call must carry.
func withToken(ctx context.Context, c config.Config) context.Context {
	if c.GRPCToken.IsZero() {
		return ctx
	}
	return metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer "+c.GRPCToken.Reveal())
}

// wait shows the progress until the copy is done or held.
func (s *snapshotCmd) wait(ctx context.Context, client pb.CdcStatusServiceClient, out *streams) error {
	began := time.Now()
	var status *pb.StatusResponse
	bar := newBar(out.stderr, func() (float64, string) {
		if next, err := client.GetStatus(ctx, &pb.StatusRequest{}); err == nil {
			status = next
		}
		total, done := max(status.GetSnapshotChunksTotal(), 1), status.GetSnapshotChunksDone()
		rate := float64(status.GetSnapshotRowsSynced()) / max(time.Since(began).Seconds(), 0.001)
		return min(1, float64(done)/float64(total)), fmt.Sprintf("%s rows, %s rows/s", grouped(status.GetSnapshotRowsSynced()), grouped(uint64(rate)))
	})
	defer bar.stop()
	for {
		now, err := client.GetStatus(ctx, &pb.StatusRequest{})
		switch {
		case err != nil:
			return fmt.Errorf("follow the copy: %w", err)
		case now.GetSnapshotPaused():
			_, err := fmt.Fprintln(out.stdout, "the copy is held; dbmazz snapshot --resume goes on")
			return err
		case !now.GetSnapshotActive():
			_, err := fmt.Fprintf(out.stdout, "copied %s rows of %d tables in %s\n",
				grouped(now.GetSnapshotRowsSynced()), len(now.GetTableProgress()), time.Since(began).Round(time.Millisecond))
			return err
		}
		pause(ctx, 500*time.Millisecond)
		if ctx.Err() != nil {
			return nil // The copy goes on without being watched.
		}
	}
}
