package control

import (
	"context"

	"uvs/control/api"
)

// Doctor implements api.Backend.
func (d *Director) Doctor(ctx context.Context) (*api.Diagnosis, error) {
	if d.cfg.Doctor == nil {
		return nil, refusal(api.Unsupported, "doctor: there is no packet path to ask by")
	}
	return d.cfg.Doctor(ctx)
}
