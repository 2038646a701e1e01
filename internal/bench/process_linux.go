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

func procFile(pid int, name string) string {
	text, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), name))
	if err != nil {
		return ""
	}
	return string(text)
}

// cpuOf is the processor time of a process, user and system; zero when it is gone.
func cpuOf(pid int) time.Duration {
	stat := procFile(pid, "stat")
	// The name in parentheses may hold anything; the fields follow its last one.
	_, rest, _ := strings.Cut(stat[strings.LastIndexByte(stat, ')')+1:], " ")
	fields := strings.Fields(rest)
	const userTime, systemTime, tick = 11, 12, 10 * time.Millisecond // USER_HZ is 100 on every Linux.
	if len(fields) <= systemTime {
		return 0
	}
	user, _ := strconv.ParseInt(fields[userTime], 10, 64) // The kernel prints numbers.
	system, _ := strconv.ParseInt(fields[systemTime], 10, 64)
	return time.Duration(user+system) * tick
}

// memoryOf is the resident memory of a process and its peak, in bytes; zero when it is gone. shared is the part of it
// that belongs to files, above all to the program itself.
func memoryOf(pid int) (resident, peak, shared uint64) {
	for line := range strings.Lines(procFile(pid, "status")) {
		name, value, _ := strings.Cut(line, ":")
		kib, _ := strconv.ParseUint(strings.TrimSuffix(strings.TrimSpace(value), " kB"), 10, 64) // Other lines do not count.
		switch name {
		case "VmHWM":
			peak = kib << 10
		case "VmRSS":
			resident = kib << 10
		case "RssFile":
			shared = kib << 10
		}
	}
	return resident, peak, shared
}

// machine describes the processors and the memory.
func machine() string {
	model := "unknown processor"
	count := 0
	for line := range strings.Lines(procText("cpuinfo")) {
		if name, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(name) == "model name" {
			model = strings.TrimSpace(value)
			count++
		}
	}
	memory, _, _ := strings.Cut(strings.TrimSpace(strings.TrimPrefix(procText("meminfo"), "MemTotal:")), " kB")
	kib, _ := strconv.Atoi(memory)
	return strconv.Itoa(count) + " x " + model + ", " + strconv.Itoa(kib>>20) + " GiB"
}

// busy is the load average of the last minute.
func busy() string {
	one, _, _ := strings.Cut(procText("loadavg"), " ")
	return one
}

func procText(name string) string {
	text, err := os.ReadFile(filepath.Join("/proc", name))
	if err != nil {
		return ""
	}
	return string(text)
}
