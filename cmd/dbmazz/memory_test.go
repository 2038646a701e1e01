package main

import (
	"os"
	"path/filepath"
	"runtime"
	"testing"

	"github.com/dbmazz/dbmazz/internal/config"
)

func TestTheTightestLimitOfTheContainerCounts(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		files map[string]string
		want  int64
	}{
		"none":                {nil, 0},
		"version 2, own":      {map[string]string{"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/memory.max": "1048576\n"}, 1 << 20},
		"version 2, no limit": {map[string]string{"proc/self/cgroup": "0::/a\n", "sys/fs/cgroup/a/memory.max": "max\n"}, 0},
		"version 2, parent": {map[string]string{
			"proc/self/cgroup": "0::/a/b\n", "sys/fs/cgroup/a/b/memory.max": "2097152\n", "sys/fs/cgroup/a/memory.max": "1048576\n",
		}, 1 << 20},
		"version 1":           {map[string]string{"sys/fs/cgroup/memory/memory.limit_in_bytes": "4194304\n"}, 4 << 20},
		"version 1, no limit": {map[string]string{"sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n"}, 0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			root := t.TempDir()
			for path, content := range test.files {
				path = filepath.Join(root, path)
				if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			if got := containerLimit(root); got != test.want {
				t.Errorf("limit %d, want %d", got, test.want)
			}
		})
	}
}

func TestABatchFitsIntoTheMemoryThatThereIs(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		set         bool
		limit, want int64
	}{
		{false, 0, 16 << 20}, {false, 1 << 30, 16 << 20}, {false, 256 << 20, 8 << 20}, {false, 1 << 20, 1 << 20}, {true, 192 << 20, 16 << 20},
	} {
		if got := flushBytes(config.Config{FlushBytes: 16 << 20, FlushBytesSet: test.set}, test.limit); got != test.want {
			t.Errorf("set %t, limit %d: %d, want %d", test.set, test.limit, got, test.want)
		}
	}
}

func TestTheCollectorLeavesRoomForTheRestOfTheProcess(t *testing.T) {
	t.Parallel()
	for limit, want := range map[int64]int64{64 << 20: 32 << 20, 100 << 20: 64 << 20, 300 << 20: 264 << 20, 1000 << 20: 900 << 20} {
		if got := aimOf(limit); got != want {
			t.Errorf("limit %d: it aims at %d, want %d", limit, got, want)
		}
	}
	runtime.GC()
	if few, many := useOf(2<<10)(), useOf(1<<40)(); few < 1 || many <= 0 || many > 0.01 {
		t.Errorf("%g of two kilobytes and %g of a terabyte are in use", few, many)
	}
}
