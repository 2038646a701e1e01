package capture

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"pgregory.net/rapid"
)

func testSpool(dir string) *spool {
	return newSpool(&Config{SpoolDir: dir, Slot: "s", SpoolMemory: 2 * spoolBlock})
}

// readLog reads a whole log.
func readLog(s *spool, l *spoolLog) ([][]byte, error) {
	r, err := s.read(l, make([]byte, spoolBlock))
	if err != nil {
		return nil, err
	}
	var all [][]byte
	for {
		m, ok, err := r.next()
		if err != nil || !ok {
			return all, err
		}
		all = append(all, bytes.Clone(m))
	}
}

// TestSpoolGivesBackWhatWasPutIn has several logs grow, be read and be released in any
// order, with less memory than logs.
func TestSpoolGivesBackWhatWasPutIn(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	rapid.Check(t, func(t *rapid.T) {
		s := testSpool(dir)
		defer s.close()
		logs := make([]spoolLog, 4)
		want := make([][][]byte, len(logs))
		size := rapid.OneOf(rapid.IntRange(1, 500), rapid.IntRange(spoolBlock/4, 3*spoolBlock), rapid.Just(spoolBlock-lengthSize))
		for step := range rapid.IntRange(1, 60).Draw(t, "steps") {
			i := rapid.IntRange(0, len(logs)-1).Draw(t, "log")
			switch rapid.IntRange(0, 9).Draw(t, "what") {
			case 0:
				if err := s.release(&logs[i]); err != nil {
					t.Fatal(err)
				}
				want[i] = nil
			case 1:
				got, err := readLog(s, &logs[i])
				if err != nil {
					t.Fatal(err)
				}
				if len(got) != len(want[i]) {
					t.Fatalf("%d messages, want %d", len(got), len(want[i]))
				}
				for n := range got {
					if !bytes.Equal(got[n], want[i][n]) {
						t.Fatalf("message %d of %d differs", n, len(got))
					}
				}
			default:
				m := bytes.Repeat([]byte{byte(step + 1)}, size.Draw(t, "size"))
				cut := rapid.IntRange(0, len(m)).Draw(t, "cut")
				if err := s.append(&logs[i], m[:cut], m[cut:]); err != nil {
					t.Fatal(err)
				}
				want[i] = append(want[i], m)
			}
			if s.made > s.most || len(s.resident)+len(s.buffers) != s.made {
				t.Fatalf("%d buffers of %d, %d in use, %d idle", s.made, s.most, len(s.resident), len(s.buffers))
			}
		}
		for i := range logs {
			if err := s.release(&logs[i]); err != nil {
				t.Fatal(err)
			}
		}
		checkEmpty(t, s)
	})
}

func checkEmpty(t *rapid.T, s *spool) {
	if s.kept != 0 || s.held != 0 || len(s.used) != 0 {
		t.Fatalf("empty, but %d bytes, %d blocks of %d in use", s.kept, s.held, len(s.used))
	}
	if s.file != nil {
		if info, err := s.file.Stat(); err != nil || info.Size() != 0 {
			t.Fatalf("file %v, %v", info.Size(), err)
		}
	}
}

func fill(s *spool, l *spoolLog, blocks int) error {
	for range blocks * 4 {
		if err := s.append(l, make([]byte, spoolBlock/4), nil); err != nil {
			return err
		}
	}
	return nil
}

func TestSpoolFileHasNoNameAndLeftoversAreRemoved(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "a", "b")
	s := testSpool(dir)
	if err := s.sweep(); err != nil {
		t.Fatalf("no folder: %v", err)
	}
	if err := fill(s, &spoolLog{}, 3); err != nil {
		t.Fatal(err)
	}
	defer s.close()
	if names := list(t, dir); len(names) != 0 {
		t.Errorf("in the folder: %v", names)
	}
	for _, name := range []string{"dbmazz-spool-s-1", "dbmazz-spool-s2-1", "other"} {
		if err := os.WriteFile(filepath.Join(dir, name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.sweep(); err != nil {
		t.Fatal(err)
	}
	if names := fmt.Sprint(list(t, dir)); names != "[dbmazz-spool-s2-1 other]" {
		t.Errorf("left: %s", names)
	}
}

func list(t *testing.T, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

func TestSpoolSaysWhyItTakesNoMore(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		change func(*spool)
		want   error
	}{
		"full disk": {func(s *spool) {
			// A file that takes nothing.
			s.create = func() (*os.File, error) { return os.Open(s.dir) }
		}, syscall.EBADF},
		"almost full disk": {func(s *spool) {
			s.space = func(string) (int64, int64, bool) { return 60 << 20, 1 << 30, true }
		}, errSpoolReserve},
		"no folder": {func(s *spool) { s.dir = "/dev/null/x" }, syscall.ENOTDIR},
		"bound":     {func(s *spool) { s.limit = 3 * spoolBlock }, nil},
	} {
		s := testSpool(t.TempDir())
		test.change(s)
		err := fill(s, &spoolLog{}, 5)
		failed, ok := errors.AsType[*spoolError](err)
		if !ok || test.want != nil && !errors.Is(err, test.want) {
			t.Errorf("%s: %v", name, err)
		} else if failed.wanted < spoolBlock || failed.wanted > 4*spoolBlock {
			t.Errorf("%s: %d bytes wanted", name, failed.wanted)
		}
		s.close()
	}
}

func TestSpoolNoticesDamage(t *testing.T) {
	t.Parallel()
	for name, damage := range map[string]func(*spool, *spoolLog) error{
		"a bit": func(s *spool, _ *spoolLog) error {
			_, err := s.file.WriteAt([]byte{1}, spoolBlock+77)
			return err
		},
		"a hole":   func(s *spool, _ *spoolLog) error { return s.file.Truncate(spoolBlock) },
		"a length": func(_ *spool, l *spoolLog) error { l.size++; return nil },
	} {
		s := testSpool(t.TempDir())
		var l spoolLog
		if err := errors.Join(fill(s, &l, 3), s.flush(&l), damage(s, &l)); err != nil {
			t.Fatal(err)
		}
		_, err := readLog(s, &l)
		if _, ok := errors.AsType[*spoolError](err); !ok {
			t.Errorf("%s: %v", name, err)
		}
		s.close()
		s.close()
	}
}

func TestSpoolingPausesLongerAfterEachFailureAndWaitsForSpace(t *testing.T) {
	t.Parallel()
	var p spooling
	cfg := &Config{SpoolDir: t.TempDir()}
	now := p.until
	if !p.over(cfg, now) {
		t.Fatal("not over before it began")
	}
	var pauses []int
	for range 8 {
		p.failed("full", 0, now)
		if p.over(cfg, now.Add(p.pause-1)) || !p.over(cfg, now.Add(p.pause)) {
			t.Fatalf("pause of %s is not kept", p.pause)
		}
		pauses = append(pauses, int(p.pause.Minutes()))
	}
	if got := fmt.Sprint(pauses); got != "[1 2 4 8 16 32 60 60]" {
		t.Errorf("pauses %s", got)
	}
	if free, _, known := freeSpace(cfg.SpoolDir); known {
		p.wanted = free
		if p.over(cfg, now.Add(p.pause)) {
			t.Error("over although the space is not there")
		}
	}
}
