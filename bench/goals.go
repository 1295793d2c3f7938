package bench

// goal is a ratio that the project wants to reach: of a subject's figure at a work to another's of the same round.
type goal struct {
	what             string
	work, figure     string
	subject, against string
	want             float64
	atMost           bool // the ratio should not be larger; else not smaller
	stretch          float64
}

// goals are the project's, in the order of its list.
var goals = []goal{
	{what: "packets/s, DR, 4 k flows", work: "packets-4k", figure: Mpps, subject: "uvs-dr", against: "bare", want: 0.9},
	{what: "packets/s, NAT, 4 k flows", work: "packets-4k", figure: Mpps, subject: "uvs-nat", against: "bare", want: 0.85},
	{what: "packets/s, NAT, 1 M flows", work: "packets-1m", figure: Mpps, subject: "uvs-nat", against: "bare", want: 0.8},
	{what: "packets/s, NAT", work: "packets-4k", figure: Mpps, subject: "uvs-nat", against: "single", want: 2.5},
	{what: "packets/s, NAT", work: "packets-4k", figure: Mpps, subject: "uvs-nat", against: "testpmd", want: 1},
	{what: "packets per CPU-second, NAT, saturated", work: "packets-4k", figure: PerCPUSecond, subject: "uvs-nat", against: "nft", want: 0.6, stretch: 0.8},
	{what: "Gbit/s up, one stream, NAT", work: "up-1", figure: Gbps, subject: "uvs-nat", against: "nft", want: 0.7},
	{what: "Gbit/s down, one stream, NAT", work: "down-1", figure: Gbps, subject: "uvs-nat", against: "nft", want: 0.7},
	{what: "Gbit/s up, one stream, NAT", work: "up-1", figure: Gbps, subject: "uvs-nat", against: "haproxy", want: 1.5},
	{what: "Gbit/s up, one stream, NAT", work: "up-1", figure: Gbps, subject: "uvs-nat", against: "nginx", want: 1.5},
	{what: "Gbit/s down, one stream, NAT", work: "down-1", figure: Gbps, subject: "uvs-nat", against: "haproxy", want: 1.5},
	{what: "Gbit/s down, one stream, NAT", work: "down-1", figure: Gbps, subject: "uvs-nat", against: "nginx", want: 1.5},
	{what: "HTTP requests/s, NAT", work: "http-keepalive", figure: PerSecond, subject: "uvs-nat", against: "haproxy", want: 1.25},
	{what: "HTTP requests/s, NAT", work: "http-keepalive", figure: PerSecond, subject: "uvs-nat", against: "nginx", want: 1.25},
	{what: "new connections/s, NAT", work: "http-close", figure: PerSecond, subject: "uvs-nat", against: "haproxy", want: 1.35},
	{what: "new connections/s, NAT", work: "http-close", figure: PerSecond, subject: "uvs-nat", against: "nginx", want: 1.35},
	{what: "HTTP requests/s, DR", work: "http-keepalive", figure: PerSecond, subject: "uvs-dr-1arm", against: "haproxy-1arm", want: 1.6},
	{what: "HTTP requests/s, DR", work: "http-keepalive", figure: PerSecond, subject: "uvs-dr-1arm", against: "nginx-1arm", want: 1.6},
	{what: "new connections/s, DR", work: "http-close", figure: PerSecond, subject: "uvs-dr-1arm", against: "haproxy-1arm", want: 1.6},
	{what: "new connections/s, DR", work: "http-close", figure: PerSecond, subject: "uvs-dr-1arm", against: "nginx-1arm", want: 1.6},
	{what: "HTTP requests/s, DR", work: "http-keepalive", figure: PerSecond, subject: "uvs-dr-1arm", against: "nft-1arm", want: 1.1},
	{what: "new connections/s, DR", work: "http-close", figure: PerSecond, subject: "uvs-dr-1arm", against: "nft-1arm", want: 1.1},
	{what: "Gbit/s down, one stream, DR", work: "down-1", figure: Gbps, subject: "uvs-dr-1arm", against: "nft-1arm", want: 1.1},
	{what: "director's CPU per 1,000 requests, DR", work: "http-keepalive", figure: DirectorPerK, subject: "uvs-dr-1arm", against: "haproxy-1arm", want: 0.3, atMost: true},
	{what: "idle round trip p50, NAT", work: "latency", figure: P50, subject: "uvs-nat", against: "bare", want: 1.2, atMost: true},
	{what: "idle CPU, % of one", work: "latency", figure: IdleCPU, subject: "uvs-nat", want: 1, atMost: true},
}

// sign is how the goal is written before its number.
func (g *goal) sign() string {
	if g.atMost {
		return "≤"
	}
	return "≥"
}

// met says whether a value reaches the goal.
func (g *goal) met(v float64) bool {
	if g.atMost {
		return v <= g.want
	}
	return v >= g.want
}
