package command

// attach makes a source for the announcements of one link.
func (d *Directory) attach(instance string) *source {
	d.mu.Lock()
	defer d.mu.Unlock()
	s := &source{instance: instance}
	d.join(s)
	return s
}

// join counts a source among those that are told.
func (d *Directory) join(s *source) {
	set := d.sources[s.instance]
	if set == nil {
		set = map[*source]struct{}{}
		d.sources[s.instance] = set
	}
	set[s] = struct{}{}
}

// leave forgets a source and all that it announced.
func (d *Directory) leave(s *source) {
	d.mu.Lock()
	defer d.unlock()
	d.clear(s)
	set := d.sources[s.instance]
	delete(set, s)
	if len(set) == 0 {
		delete(d.sources, s.instance)
	}
}
