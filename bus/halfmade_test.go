package bus_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/dbmazz/dbmazz/bus"
	"github.com/dbmazz/dbmazz/bus/bustest"
)

// folderOf returns the folder of a stream of the account that everything is in.
func folderOf(t *testing.T, data, stream string) string {
	t.Helper()
	found, err := filepath.Glob(filepath.Join(data, "nats", "jetstream", "*", "streams", stream))
	if err != nil || len(found) != 1 {
		t.Fatalf("folders of stream %s: %v, %v", stream, found, err)
	}
	return found[0]
}

func TestStreamWhoseCreationWasCutShortIsMadeAgain(t *testing.T) {
	t.Parallel()
	for _, lost := range []string{"meta.sum", "meta.inf"} {
		for _, how := range []string{"missing", "empty"} {
			t.Run(lost+" "+how, func(t *testing.T) {
				t.Parallel()
				data := t.TempDir()
				b := bustest.Open(t, bus.Config{DataDir: data})
				publish(t, b, 3, 100)
				bustest.Close(t, b)
				half := filepath.Join(filepath.Dir(folderOf(t, data, "DBMAZZ_test")), "DBMAZZ_test_DLQ")
				if err := os.MkdirAll(filepath.Join(half, "msgs"), 0o700); err != nil {
					t.Fatal(err)
				}
				for _, name := range []string{"meta.inf", "meta.sum"} {
					content := "{}"
					if name == lost {
						if how == "missing" {
							continue
						}
						content = ""
					}
					if err := os.WriteFile(filepath.Join(half, name), []byte(content), 0o600); err != nil {
						t.Fatal(err)
					}
				}
				again := bustest.Open(t, bus.Config{DataDir: data})
				if last := readAll(t, again, 0, 3); last.Sequence != 3 {
					t.Errorf("the stream ends at %d", last.Sequence)
				}
				if err := again.DeadLetters().Put(bounded(t), bus.Letter{ID: "a", Data: []byte("x")}); err != nil {
					t.Error(err)
				}
			})
		}
	}
}

func TestStreamWithMessagesThatLostItsDescriptionIsRefusedAndKept(t *testing.T) {
	t.Parallel()
	data := t.TempDir()
	b := bustest.Open(t, bus.Config{DataDir: data})
	publish(t, b, 3, 100)
	bustest.Close(t, b)
	folder := folderOf(t, data, "DBMAZZ_test")
	if err := os.Remove(filepath.Join(folder, "meta.sum")); err != nil {
		t.Fatal(err)
	}
	_, err := bustest.TryOpen(t, bus.Config{DataDir: data})
	if err == nil || !strings.Contains(err.Error(), "the files are untouched") {
		t.Errorf("opened, or refused without a remedy: %v", err)
	}
	if files, _ := filepath.Glob(filepath.Join(folder, "msgs", "*.blk")); len(files) == 0 {
		t.Error("the messages are gone")
	}
}

// The server makes a file when it starts, to see that it can, and removes it. A kill in between leaves
// it behind, and the next start found an account in it that does not exist.
func TestFileThatAStartHasLeftIsRemoved(t *testing.T) {
	t.Parallel()
	data := t.TempDir()
	b := bustest.Open(t, bus.Config{DataDir: data})
	publish(t, b, 3, 100)
	bustest.Close(t, b)
	probe := filepath.Join(data, "nats", "jetstream", "_test_3335432139")
	if err := os.WriteFile(probe, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if last := readAll(t, bustest.Open(t, bus.Config{DataDir: data}), 0, 3); last.Sequence != 3 {
		t.Errorf("the stream ends at %d", last.Sequence)
	}
	if _, err := os.Stat(probe); err == nil {
		t.Error("the file is still there")
	}
}
