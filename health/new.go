package health

// New returns a Prober of a kind, its options not set, or nil if there is no such kind.
func New(kind string) Prober {
	if make := kinds[kind]; make != nil {
		return make()
	}
	return nil
}
