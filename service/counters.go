package service

// Counters are the packet counts of a virtual service or a real server. Bytes are IP bytes: header and payload, without
// Ethernet. Out is what NAT sends from server to client; DR and TUN never see it.
type Counters struct {
	Conns    uint64
	InPkts   uint64
	OutPkts  uint64
	InBytes  uint64
	OutBytes uint64
}

// Add adds d to c.
func (c *Counters) Add(d Counters) {
	c.Conns += d.Conns
	c.InPkts += d.InPkts
	c.OutPkts += d.OutPkts
	c.InBytes += d.InBytes
	c.OutBytes += d.OutBytes
}

// Sub subtracts d from c.
func (c *Counters) Sub(d Counters) {
	c.Conns -= d.Conns
	c.InPkts -= d.InPkts
	c.OutPkts -= d.OutPkts
	c.InBytes -= d.InBytes
	c.OutBytes -= d.OutBytes
}
