package main

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

func attributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}

// usage is what a process has used.
type usage struct {
	cpu      time.Duration
	peak     uint64 // Bytes of memory, at most so far.
	resident uint64 // Bytes of memory now.
}

// usageOf reads what the kernel knows of a process; zero when it is gone.
func usageOf(pid int) usage {
	var u usage
	dir := filepath.Join("/proc", strconv.Itoa(pid))
	if stat, err := os.ReadFile(filepath.Join(dir, "stat")); err == nil {
		// The name in parentheses may hold anything; the fields follow its last one.
		_, rest, _ := strings.Cut(string(stat[strings.LastIndexByte(string(stat), ')')+1:]), " ")
		fields := strings.Fields(rest)
		const userTime, systemTime, tick = 11, 12, 10 * time.Millisecond // USER_HZ is 100 on every Linux.
		if len(fields) > systemTime {
			user, _ := strconv.ParseInt(fields[userTime], 10, 64) // The kernel prints numbers.
			system, _ := strconv.ParseInt(fields[systemTime], 10, 64)
			u.cpu = time.Duration(user+system) * tick
		}
	}
	status, err := os.ReadFile(filepath.Join(dir, "status"))
	if err != nil {
		return u
	}
	for line := range strings.Lines(string(status)) {
		name, value, _ := strings.Cut(line, ":")
		kib, _ := strconv.ParseUint(strings.TrimSuffix(strings.TrimSpace(value), " kB"), 10, 64) // Other lines do not count.
		switch name {
		case "VmHWM":
			u.peak = kib << 10
		case "VmRSS":
			u.resident = kib << 10
		}
	}
	return u
}
