package trial

import (
	"math/bits"

	"uvs/service"
)

// defaultClients is how many clients a group remembers if nothing else is asked for.
const defaultClients = 1 << 14

// clients remembers where clients went, in a table of fixed size: of two with the same place the later stays.
type clients struct {
	table []client
	none  client
}

// client is one client's last connection to one destination.
type client struct {
	key   uint64 // 0: nobody
	slots Choice
	epoch uint32
}

func newClients(n int) clients {
	switch {
	case n < 0:
		return clients{}
	case n == 0:
		n = defaultClients
	}
	return clients{table: make([]client, 1<<bits.Len(uint(n-1)))}
}

// at is the place of a request's client and its key. Another client may have the place.
func (c *clients) at(r *service.Request) (*client, uint64) {
	if len(c.table) == 0 {
		c.none = client{}
		return &c.none, 1
	}
	a, b := r.Flow.Src.Words()
	d, e := r.Flow.Dst.Words()
	key := mix(mix(a^0x9e3779b97f4a7c15, b^0xd1b54a32d192ed03), mix(d^0x94d049bb133111eb, e^0xbf58476d1ce4e5b9)) | 1
	return &c.table[key>>32&uint64(len(c.table)-1)], key
}

// forget takes what a trial chose out of the memory.
func (c *clients) forget(place int) {
	for i := range c.table {
		c.table[i].slots[place] = NoSlot
	}
}

func mix(a, b uint64) uint64 {
	hi, lo := bits.Mul64(a, b)
	return hi ^ lo
}

// forgetServer takes a server whose slot another one gets out of the memory.
func (c *clients) forgetServer(slot Slot) {
	for i := range c.table {
		for j, s := range c.table[i].slots {
			if s == slot {
				c.table[i].slots[j] = NoSlot
			}
		}
	}
}
