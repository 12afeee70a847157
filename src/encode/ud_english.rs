pub(super) fn words(chunk: &str, emit: &mut dyn FnMut(&str)) {
    emit(chunk);
}
