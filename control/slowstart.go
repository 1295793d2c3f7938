package control

import (
	"time"

	"uvs/service"
)

// enters begins a server's slow start, if its service's policy has one, when it can take new connections and could not before; and
// ends it in the opposite case. before and now are its weights.
func (c *commit) enters(v *virtual, rs *service.RealServer, before, now int32) {
	length := time.Duration(v.policy.SlowStart)
	switch {
	case now <= 0 || length == 0:
		v.slow.End(rs)
	case before <= 0:
		v.slow.Begin(rs, c.d.cfg.Now(), length)
		c.d.starting[v] = struct{}{}
	}
}

// endSlowStarts publishes the bare schedulers of services whose slow starts are over.
func (d *Director) endSlowStarts() {
	d.mu.Lock()
	defer d.mu.Unlock()
	c := d.newCommit()
	for v := range d.starting {
		if v.gone || v.slow.Over(d.cfg.Now()) {
			delete(d.starting, v)
			if !v.gone {
				c.dirty[v] = struct{}{}
			}
		}
	}
	c.finish()
}
