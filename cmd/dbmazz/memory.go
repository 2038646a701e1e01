package main

import (
	"math"
	"os"
	"path/filepath"
	"runtime/debug"
	"runtime/metrics"
	"strconv"
	"strings"

	"github.com/dbmazz/dbmazz/internal/config"
)

// limitMemory has the garbage collector work towards a limit: the one given, else what
// GOMEMLIMIT has set, else 90 % of the container's. It returns the limit, zero for none.
func limitMemory(limit int64) int64 {
	if now := debug.SetMemoryLimit(-1); limit == 0 && now != math.MaxInt64 {
		return now
	}
	if limit == 0 {
		limit = containerLimit("/") / 10 * 9
	}
	if limit > 0 {
		debug.SetMemoryLimit(aimOf(limit))
	}
	return limit
}

// aimOf is what the collector is told of a limit. It knows nothing of the program's file in
// memory, about 30 MB, nor of what the system keeps for the process.
func aimOf(limit int64) int64 {
	const file = 36 << 20
	return max(min(limit/10*9, limit-file), limit/2)
}

// useOf returns what tells which part of what the collector aims at for a limit was in use at
// the last collection of garbage.
func useOf(limit int64) func() float64 {
	aim := float64(aimOf(limit))
	return func() float64 {
		live := []metrics.Sample{{Name: "/gc/heap/live:bytes"}}
		metrics.Read(live)
		return float64(live[0].Value.Uint64()) / aim
	}
}

// flushBytes returns what bounds a batch: what is set, or less where memory is short. A
// batch of narrow rows takes about 20 times its bytes in the stream.
func flushBytes(c config.Config, limit int64) int64 {
	const share, least = 32, 1 << 20
	if c.FlushBytesSet || limit <= 0 {
		return c.FlushBytes
	}
	return min(c.FlushBytes, max(limit/share, least))
}

// containerLimit returns the memory limit of the control group that the process is in,
// zero for none. root is / but in tests. Version 2 has one file per group, of which the
// tightest counts (kernel documentation, cgroup-v2, memory.max); version 1 has the limit
// of the container at a fixed place.
func containerLimit(root string) int64 {
	group := ""
	if data, err := os.ReadFile(filepath.Join(root, "proc/self/cgroup")); err == nil {
		for line := range strings.Lines(string(data)) {
			if path, ok := strings.CutPrefix(strings.TrimSpace(line), "0::"); ok {
				group = path
			}
		}
	}
	files := []string{"sys/fs/cgroup/memory/memory.limit_in_bytes", "sys/fs/cgroup/memory.max"}
	for dir := filepath.Clean("/" + group); dir != "/"; dir = filepath.Dir(dir) {
		files = append(files, filepath.Join("sys/fs/cgroup", dir, "memory.max"))
	}
	var tightest int64
	for _, file := range files {
		data, err := os.ReadFile(filepath.Join(root, file))
		if err != nil {
			continue
		}
		limit, err := strconv.ParseInt(strings.TrimSpace(string(data)), 10, 64)
		// Version 1 says "no limit" with a number beyond any memory.
		if err == nil && limit > 0 && limit < 1<<60 && (tightest == 0 || limit < tightest) {
			tightest = limit
		}
	}
	return tightest
}
