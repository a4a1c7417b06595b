package registry

// Occupy takes all turns of p until release is called.
func Occupy(p *Passwords) (release func()) {
	for range cap(p.turns) {
		p.turns <- struct{}{}
	}
	return func() {
		for range cap(p.turns) {
			<-p.turns
		}
	}
}
