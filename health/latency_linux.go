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
	d, age := rs.SetupLatency(bootTime())
	if age > setupAge {
		return 0
	}
	return d
}

// bootTime is the time on the clock of service.Request's Now.
func bootTime() int64 {
	var t unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &t); err != nil {
		panic("health: no CLOCK_BOOTTIME: " + err.Error()) // Linux has it since 2.6.39
	}
	return t.Nano()
}
