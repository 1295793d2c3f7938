package health

import (
	"time"

	"golang.org/x/sys/unix"

	"uvs/service"
)

// setupAge is how old the last of clients' connections may be that still says how quick a server is.
const setupAge = 10 * time.Second

// setupLatency has the set-up of clients' connections timed, and is their recent average, or 0.
func setupLatency(rs *service.RealServer) time.Duration {
	rs.TimeSetups()
	var t unix.Timespec
	if unix.ClockGettime(unix.CLOCK_BOOTTIME, &t) != nil { // Request.Now's clock
		return 0
	}
	d, age := rs.SetupLatency(t.Nano())
	if age > setupAge {
		return 0
	}
	return d
}
