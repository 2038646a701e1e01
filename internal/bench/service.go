package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/dbmazz/dbmazz/internal/freeport"
)

// service is a process of dbmazz.
type service struct {
	*process
	metrics string // address
	began   time.Time
	used    usage // at the moment that counts as its begin
	profile *profile
}

// usage is what a process has used since it started.
type usage struct {
	cpu     time.Duration
	mallocs float64
}

// launch starts dbmazz. The folder holds its queue; sink may be nil for capture alone.
func (b *bench) launch(ctx context.Context, command, folder string, d *database, slot string) (*service, error) {
	grpc, err := freeport.PickAddress(ctx)
	if err != nil {
		return nil, err
	}
	metrics, err := freeport.PickAddress(ctx)
	if err != nil {
		return nil, err
	}
	env := append([]string{
		"SOURCE_URL=" + d.server.URL(d.name), "SOURCE_SLOT_NAME=" + slot, "SOURCE_PUBLICATION_NAME=" + publication,
		"TABLES=" + strings.Join(d.workload.tables, ","), "SNAPSHOT=never", "BUS_DATA_DIR=" + folder,
		"GRPC_ADDR=" + grpc, "METRICS_ADDR=" + metrics,
	}, b.sink.env()...)
	if d.workload.hard {
		env = append(env, "SINK_DELETE_MODE=hard")
	}
	args := []string{command}
	if command == "run" {
		args = nil
	}
	cmd := exec.Command(b.binary, args...) //nolint:noctx // Stopped in order, not by a context.
	// Variables that are given twice count as given last.
	cmd.Env, cmd.Dir = childEnv(append(env, b.env...)...), b.dir
	s := &service{metrics: metrics, began: time.Now()}
	s.process, err = start("dbmazz "+command, cmd, b.log)
	if b.profile > 0 {
		s.profile = &profile{lasting: b.profile, path: filepath.Join(b.dir, fmt.Sprintf("%s-%s-%d", d.workload.name, command, b.folders))}
	}
	return s, err
}

// mark begins to count what the process uses.
func (s *service) mark(ctx context.Context) error {
	values, err := s.scrape(ctx)
	s.used = usage{cpu: cpuOf(s.pid()), mallocs: values["go_memstats_mallocs_total"]}
	s.profile.take(ctx, s.metrics)
	return err
}

// since is what the process has used since mark.
func (s *service) since(ctx context.Context) (usage, error) {
	cpu := cpuOf(s.pid())
	values, err := s.scrape(ctx)
	return usage{cpu: cpu - s.used.cpu, mallocs: values["go_memstats_mallocs_total"] - s.used.mallocs}, err
}

// scrape reads the metrics of the process, those without labels.
func (s *service) scrape(ctx context.Context) (map[string]float64, error) {
	values := map[string]float64{}
	err := s.get(ctx, "/metrics", func(scanner *bufio.Scanner) {
		for scanner.Scan() {
			name, value, ok := strings.Cut(scanner.Text(), " ")
			if !ok || strings.HasPrefix(name, "#") {
				continue
			}
			if f, err := strconv.ParseFloat(value, 64); err == nil {
				values[name] = f
			}
		}
	})
	return values, err
}

var errNotReady = errors.New("not ready")

func (s *service) get(ctx context.Context, path string, read func(*bufio.Scanner)) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+s.metrics+path, http.NoBody)
	if err != nil {
		return fmt.Errorf("ask dbmazz: %w", err)
	}
	answer, err := http.DefaultClient.Do(r)
	if err != nil {
		return fmt.Errorf("ask dbmazz: %w", err)
	}
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusOK {
		return fmt.Errorf("ask dbmazz for %s: %w", path, errNotReady)
	}
	scanner := bufio.NewScanner(answer.Body)
	read(scanner)
	return scanner.Err()
}

// awaitReady waits until the process says that it works, and returns how long that took from its start.
func (s *service) awaitReady(ctx context.Context) (time.Duration, error) {
	err := s.await(ctx, 10*time.Millisecond, "dbmazz to be ready", func(ctx context.Context) (bool, error) {
		return s.get(ctx, "/readyz", func(*bufio.Scanner) {}) == nil, nil
	})
	return time.Since(s.began), err
}

// awaitMetrics waits until the process can be asked.
func (s *service) awaitMetrics(ctx context.Context) error {
	return s.await(ctx, 5*time.Millisecond, "dbmazz to listen", func(ctx context.Context) (bool, error) {
		return s.get(ctx, "/healthz", func(*bufio.Scanner) {}) == nil, nil
	})
}

// awaitWithin is how long a run may take.
const awaitWithin = 30 * time.Minute

// await polls as long as the process lives.
func (s *service) await(ctx context.Context, every time.Duration, what string, ready func(context.Context) (bool, error)) error {
	return poll(ctx, awaitWithin, every, what, func(ctx context.Context) (bool, error) {
		if s.ended() {
			return false, fmt.Errorf("%s has ended: %w; see the log", s.name, orZero(s.err))
		}
		return ready(ctx)
	})
}

func orZero(err error) error {
	if err == nil {
		return errors.New("exit status 0")
	}
	return err
}

// folder makes an empty folder for a queue.
func (b *bench) folder() (string, error) {
	b.folders++
	dir := filepath.Join(b.dir, "queue-"+strconv.Itoa(b.folders))
	if err := os.RemoveAll(dir); err != nil {
		return "", fmt.Errorf("make a folder: %w", err)
	}
	return dir, nil
}
