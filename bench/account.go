package bench

import "time"

// usage is what one measured stretch used, and what it moved.
type usage struct {
	took     time.Duration
	offered  uint64        // frames that the generator sent
	arrived  uint64        // frames that came out at the other end
	director time.Duration // CPU of the director's processes
	sender   time.Duration // CPU of the generator's thread and of the kernel's softirq threads
}

// packetFigures are a stretch's figures. null is what the generator's CPU time per frame is if nobody receives them: what
// it takes more with a receiver is the receiver's work, which veth bills to the sender. Of a forwarder in the kernel that is
// all there is. The two parts are per frame of their own kind: what was received and dropped cost the receiving part too.
func packetFigures(u usage, null float64) map[string]float64 {
	f := map[string]float64{}
	if u.took <= 0 || u.offered == 0 {
		return f
	}
	f[Mpps] = float64(u.arrived) / u.took.Seconds() / 1e6
	f[OfferedMpps] = float64(u.offered) / u.took.Seconds() / 1e6
	receive := max(0, float64(u.sender.Nanoseconds())/float64(u.offered)-null)
	f[ReceiveNs] = receive
	if u.arrived == 0 {
		return f
	}
	f[DirectorNs] = float64(u.director.Nanoseconds()) / float64(u.arrived)
	f[TotalNs] = f[DirectorNs] + receive
	if f[TotalNs] > 0 {
		f[PerCPUSecond] = 1e3 / f[TotalNs]
	}
	return f
}

// The figures' names, with their units.
const (
	Mpps         = "Mpps"
	OfferedMpps  = "offered Mpps"
	DirectorNs   = "director ns/packet"
	ReceiveNs    = "receive ns/packet"
	TotalNs      = "total ns/packet"
	PerCPUSecond = "Mpackets/CPU-s"

	Gbps          = "Gbit/s"
	DirectorPerGB = "director CPU-ms/GB"
	WholePerGB    = "all CPU-ms/GB"

	PerSecond     = "requests/s"
	DirectorPerK  = "director CPU-ms/1000"
	WholePerK     = "all CPU-ms/1000"
	RequestErrors = "errors"

	P50     = "p50 us"
	P99     = "p99 us"
	IdleCPU = "idle CPU %"

	P999          = "p99.9 us"
	Longest       = "longest ms"
	FailedShare   = "failed %"
	DirectorBytes = "director B/conn"
	KernelBytes   = "kernel B/conn"
	Failed        = "failed requests"
	HeldLost      = "held lost %"
)

// perThing is CPU time in milliseconds for each unit of count things; 0 of none.
func perThing(cpu time.Duration, count, unit float64) float64 {
	if count <= 0 {
		return 0
	}
	return float64(cpu.Nanoseconds()) / 1e6 / count * unit
}
