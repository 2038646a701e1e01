package bus_test

import (
	"fmt"
	"os"
	"runtime"
	"runtime/debug"
	"strings"
	"testing"

	"github.com/dbmazz/dbmazz/bus"
	"github.com/dbmazz/dbmazz/bus/bustest"
)

// residentMB returns the largest resident memory of this process since the last call.
func residentMB(t *testing.T) (peak int) {
	t.Helper()
	data, err := os.ReadFile("/proc/self/status")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.SplitSeq(string(data), "\n") {
		if _, err := fmt.Sscanf(line, "VmHWM: %d kB", &peak); err == nil {
			break
		}
	}
	debug.FreeOSMemory()
	_ = os.WriteFile("/proc/self/clear_refs", []byte("5"), 0o200) // Starts the peak anew.
	return peak >> 10
}

// TestHugeFrameTakesBoundedMemory sends frames of 64 MB through a server of another
// process, and bounds what this one, with publisher and consumer, takes for it.
func TestHugeFrameTakesBoundedMemory(t *testing.T) {
	skipUnlessLong(t)
	s := bustest.StartServer(t, bustest.ServerConfig{})
	b := bustest.Open(t, bus.Config{URL: s.URL})
	runtime.GC()
	residentMB(t)
	publish(t, b, 3, 64<<20)
	publishing := residentMB(t)
	readAll(t, b, 0, 3)
	reading := residentMB(t)
	t.Logf("publishing takes %d MB, reading %d MB", publishing, reading)
	if publishing > 600 || reading > 600 {
		t.Error("that is too much")
	}
}
