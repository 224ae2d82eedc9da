"""Expand a job template into the jobs of one line: a table row or an explicit job."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from itertools import product

from batchgen.errors import Objection
from batchgen.job import REFERENCE_REASON, PlannedJob
from batchgen.manifest.field_types import MatrixValue
from batchgen.manifest.loader import DocPath
from batchgen.manifest.sandbox import TemplateError, UndefinedNameError
from batchgen.manifest.table import ColumnNames, normal_names
from batchgen.manifest.template import Expression, present
from batchgen.planning.amendments import Amendments
from batchgen.planning.faults import row_reason
from batchgen.planning.fingerprint import fingerprints_with
from batchgen.planning.job_context import (
    Cell,
    Context,
    JobFault,
    JobRefused,
    OptionSet,
    PlacedReference,
)
from batchgen.planning.job_template import JobTemplate, Part, stem_of
from batchgen.planning.line import Line
from batchgen.planning.naming import (
    EXT_MARK,
    NamingError,
    checked_key,
    copy_key,
    output_path,
    path_of_stem,
    prompt_key,
    row_key,
)
from batchgen.planning.option_sets import OptionSets
from batchgen.planning.plain_rows import PlainRows, plain_rows
from batchgen.planning.reference_images import find_reference
from batchgen.planning.reference_names import image_names


class JobMaker:
    """Expander of one job template; it makes the jobs of each line."""

    def __init__(
        self, template: JobTemplate, at: DocPath, context: Context, *, repeats_a_line: bool = False
    ) -> None:
        self._template = template
        self._at = at
        self._context = context
        self._matrix_names = normal_names(list(template.matrix)) if not template.broken else ()
        is_of_rows = at == () and context.table != ""
        is_trusted = not is_of_rows
        self._image_names = image_names(template, context.directories, is_trusted=is_trusted)
        self._options = OptionSets(
            template,
            context,
            of_rows=is_of_rows,
            is_variant=template.count > 1 or repeats_a_line,
        )
        model_part = template.model_part
        self._has_row_model = model_part is not None and not model_part.template.names <= set(
            self._matrix_names
        )
        self._uses_row = any("row" in part.template.names for part in template.parts)
        stem = stem_of(template.path.template)
        self._stem = replace(template.path, template=stem) if stem else None
        self._own_variables: dict[str, object] = {"index": 1, "name": context.batch}
        if template.model_part is None:
            self._own_variables["model"] = template.model
        self.makes_one = template.count == 1 and not template.matrix
        self.idle = template.broken
        if not template.broken and template.prompt is None:
            context.faults.of_manifest((*at, "prompt"), "missing; every job needs a prompt")
            self.idle = True

    def plain_rows(self, columns: ColumnNames) -> PlainRows | None:
        """Return a quicker maker for the plain rows of a text table; None if no row is plain."""
        stem = self._stem.template if self._stem else None
        return plain_rows(self._template, stem, columns, self._options.fixed, self._context)

    def jobs(self, line: Line, *, earlier: int = 0) -> Iterator[PlannedJob]:
        """Yield the jobs of one line: matrix combinations times ``count``.

        Copies are numbered after those of ``earlier`` equal lines.
        """
        if self.idle:
            return
        for combination in product(*self._template.matrix.values()):
            first = earlier * self._template.count + 1
            for copy in range(first, first + self._template.count):
                job = self.job(line, combination, copy)
                if job is None:
                    break  # its other copies would fail in the same way
                yield job

    def job(
        self, line: Line, combination: tuple[MatrixValue, ...] = (), copy: int = 1
    ) -> PlannedJob | None:
        """Return one job of a line; a refused job if its row has an error.

        None if the error is reported as one of the whole manifest.
        """
        try:
            return self._job(line, combination, copy)
        except JobFault as fault:
            reason = self._report(fault, line)
        except JobRefused as refused:
            reason = refused.reason
        return None if reason is None else self._refused_job(line, combination, copy, reason)

    def refused_jobs(self, line: Line, reason: str) -> Iterator[PlannedJob]:
        """Yield refused jobs for all jobs of a row."""
        for combination in product(*self._template.matrix.values()):
            for copy in range(1, self._template.count + 1):
                yield self._refused_job(line, combination, copy, reason)

    def is_wanted(self, line: Line, where: Expression) -> bool | str:
        """Return whether a row passes the manifest's ``where``.

        A string is the failure reason of a row on which ``where`` cannot be evaluated. An error of
        the manifest is reported, and the row does not pass.
        """
        try:
            return where.is_true(self._variables(line, (), with_row=True))
        except TemplateError as error:
            fault = self._template_fault(("rows", "where"), error)
            return self._report(fault, line) or False

    def _report(self, fault: JobFault, line: Line) -> str | None:
        """Report an error. Return the failure reason of the job; None if the whole plan fails."""
        path = (*self._at, *fault.place)
        if line.row is None or fault.of_manifest:
            self._context.faults.of_manifest(path, fault.message)
            return None
        return self._report_row(line, path, fault.message)

    def _report_row(self, line: Line, path: DocPath, message: str) -> str | None:
        found = self._context.rows.of_row(self._context.table, line.row, path, message)
        return None if found is None else row_reason(found)

    def _report_objections(self, objections: Sequence[Objection], line: Line) -> None:
        """Report the objections of the provider's rules. Raises JobRefused if one is fatal."""
        context, reasons = self._context, list[str | None]()
        for objection in objections:
            path = (*self._template.at, *objection.place)
            if not objection.fatal:
                context.warnings.add(path, objection.message)
            elif line.row is None or not (
                self._has_row_model or self._options.rendered_names & set(objection.options)
            ):
                context.faults.of_manifest(path, objection.message)
                reasons.append(None)
            else:
                reasons.append(self._report_row(line, path, objection.message))
        if reasons:
            raise JobRefused(None if None in reasons else reasons[0])

    def _refused_job(
        self, line: Line, combination: tuple[MatrixValue, ...], copy: int, reason: str
    ) -> PlannedJob:
        """Return a job that is never sent, under its own key if the row still has one."""
        variables = self._variables(line, combination, with_row=True)
        own_index = "index" not in line.values
        if own_index:
            variables["index"] = copy
        key, options = None, self._options.fixed
        model = self._template.model
        path = prompt = ""
        with suppress(JobFault):
            model = self._model(variables)
        try:
            key = self._given_key(line, combination, variables, copy, own_index)
            part = self._template.prompt
            prompt = ((self._text(part, variables) if part else None) or "").strip()
            if key is None and prompt:
                matrix = dict(zip(self._matrix_names, combination, strict=True))
                key = copy_key(prompt_key(prompt, matrix), copy)
            if key is not None:
                variables["key"] = key
                path = self._path(variables, own_index, copy)
            options = options or self._options.rendered(model, variables, self._text)
        except JobFault:
            pass  # refuse the job with what is known so far
        if key is None:
            self._context.rows.has_unknown_keys = True
            key = copy_key("/".join([line.source, *map(str, combination)]), copy)
        options = options or self._options.of_constants(model)
        if combination and self._context.observe_cell is not None:
            self._context.observe_cell(key, self._cell(line, combination))
        return PlannedJob(options.kind, key, "", prompt, path, line.source, refused=reason)

    def _variables(
        self, line: Line, combination: Sequence[object], *, with_row: bool
    ) -> dict[str, object]:
        variables: dict[str, object] = {**self._own_variables, **line.values}
        if combination:
            variables |= zip(self._matrix_names, combination, strict=True)
        if with_row:
            raw = dict(zip(self._template.matrix, combination, strict=True)) if combination else {}
            variables["row"] = {**present(line.raw), **raw}
        return variables

    def _job(self, line: Line, combination: tuple[MatrixValue, ...], copy: int) -> PlannedJob:
        template = self._template
        for name in self._matrix_names:
            if name in line.values:
                message = f"{name!r} is also the name of a column; rename the matrix variable"
                raise JobFault(("matrix",), message, of_manifest=True)
        variables = self._variables(line, combination, with_row=self._uses_row)
        own_index = "index" not in line.values
        if own_index:
            variables["index"] = copy

        model = template.model if template.model_part is None else self._model(variables)
        key = self._given_key(line, combination, variables, copy, own_index)
        if key is not None:
            variables["key"] = key
        prompt = self._prompt(model, variables)
        if key is None:
            matrix = dict(zip(self._matrix_names, combination, strict=True))
            key = variables["key"] = copy_key(prompt_key(prompt, matrix), copy)
        if combination and self._context.observe_cell is not None:
            self._context.observe_cell(key, self._cell(line, combination))
        if self._context.amendments is not None:
            prompt = self._amended(self._context.amendments, key, model, prompt)
        path = self._path(variables, own_index, copy)
        options = self._options.fixed or self._options.rendered(model, variables, self._text)
        if template.images or template.mask:
            return self._with_references(line, variables, options, (key, prompt, path))
        if options.objections:
            self._report_objections(options.objections, line)
        fingerprint = options.fingerprints.of(prompt)
        return PlannedJob(options.kind, key, fingerprint, prompt, path, line.source)

    def _with_references(
        self,
        line: Line,
        variables: Mapping[str, object],
        options: OptionSet,
        own: tuple[str, str, str],
    ) -> PlannedJob:
        """Return a job with reference images; ``own`` is its key, prompt and path."""
        template, model = self._template, options.kind.model
        key, prompt, path = own
        images = self._references(template.images, variables)
        mask = self._mask(variables, with_images=bool(images))
        self._report_objections(
            self._context.objections(model, options.options_text, len(images)), line
        )
        fingerprints = fingerprints_with(
            self._context.provider,
            model,
            options.options_text,
            tuple(found.reference.identity for found in images),
            mask.reference.identity if mask else None,
        )
        return PlannedJob(
            kind=options.kind,
            key=key,
            fingerprint=fingerprints.of(prompt),
            prompt=prompt,
            path=path,
            source=line.source,
            images=tuple(found.reference.location for found in images),
            mask=mask.reference.location if mask else None,
            refused=self._refusal(model, images, mask, line) if images else None,
        )

    def _given_key(
        self,
        line: Line,
        combination: tuple[MatrixValue, ...],
        variables: Mapping[str, object],
        copy: int,
        own_index: bool,
    ) -> str | None:
        """Return the key given by the template or the row; None to derive it from the prompt."""
        part = self._template.key
        text = None if part is None else self._text(part, variables)
        try:
            if text is None:
                text = row_key(line.values, combination)
            elif own_index and part is not None and "index" in part.template.names:
                return checked_key(text)
            return None if text is None else copy_key(checked_key(text), copy)
        except NamingError as error:
            raise JobFault(("key",), str(error)) from None

    def _model(self, variables: dict[str, object]) -> str:
        """Return the model of a job, which its other templates see as a variable."""
        part = self._template.model_part
        if part is None:
            return self._template.model
        text = self._text(part, variables)
        model = self._template.model if text is None else text.strip()
        if not model:
            raise JobFault(part.place, "the model is empty")
        variables.setdefault("model", model)
        return model

    def _prompt(self, model: str, variables: Mapping[str, object]) -> str:
        part = self._template.prompt
        text = self._text(part, variables) if part else None
        prompt = (text or "").strip()
        place: DocPath = part.place if part else ("prompt",)
        if not prompt:
            raise JobFault(place, "the prompt is empty")
        if len(prompt) > self._context.accepted_chars.get(model, 0):
            self._ask_of_prompt(model, len(prompt), place)
        return prompt

    def _amended(self, amendments: Amendments, key: str, model: str, prompt: str) -> str:
        """Return the prompt that a person set in review, or that of the manifest."""
        prompt = amendments.prompt_of(key, prompt)
        if len(prompt) > self._context.accepted_chars.get(model, 0):
            self._ask_of_prompt(model, len(prompt), ("prompt",))
        return prompt

    def _ask_of_prompt(self, model: str, characters: int, place: DocPath) -> None:
        rules = self._context.rules
        objection = rules.of_prompt(model, characters) if rules else None
        if objection is None:
            self._context.accepted_chars[model] = characters
        elif objection.fatal:
            raise JobFault(place, objection.message)
        else:
            self._warn(place, objection.message)

    def _path(self, variables: dict[str, object], own_index: bool, copy: int) -> str:
        part, names = self._template.path, self._template.path.template.names
        try:
            if "key" in names or (own_index and "index" in names):
                copy = 1  # the path differs per copy already
            if self._stem is not None and (stem := self._text(self._stem, variables)) is not None:
                return path_of_stem(stem, copy)
            variables["ext"] = EXT_MARK
            text = self._text(part, variables)
            if text is None:
                return path_of_stem(str(variables["key"]))
            return output_path(text, copy)
        except NamingError as error:
            raise JobFault(part.place, str(error)) from None

    def _references(
        self, parts: Sequence[Part], variables: Mapping[str, object]
    ) -> tuple[PlacedReference, ...]:
        """Return the reference images of a job, without those whose template needs a row."""
        context, found = self._context, []
        for part in parts:
            text = self._text(part, variables)
            if text is None:
                continue
            try:
                names = self._image_names[part.place]
                reference = find_reference(text.strip(), names, context.reference_urls)
            except ValueError as error:
                constant = part.template.constant is not None
                raise JobFault(part.place, str(error), of_manifest=constant) from None
            found.append(PlacedReference(part.place, reference))
        return tuple(found)

    def _mask(
        self, variables: Mapping[str, object], *, with_images: bool
    ) -> PlacedReference | None:
        part = self._template.mask
        found = self._references((part,), variables) if part else ()
        if part is None or not found or with_images:
            return found[0] if found else None
        if part.of_rows:
            return None
        raise JobFault(part.place, "a mask needs a reference image; add it below images:")

    def _refusal(
        self,
        model: str,
        images: Sequence[PlacedReference],
        mask: PlacedReference | None,
        line: Line,
    ) -> str | None:
        """Return why the job cannot be sent because of a reference image given by URL.

        Errors of files are reported as errors of the job. Raises JobRefused for those.
        """
        refusals, reasons = [], list[str | None]()
        for found in (*images, mask) if mask else images:
            if found.reference.warning:
                self._warn(found.place, found.reference.warning)
            if found.reference.refusal:
                refusals.append((found.place, found.reference.refusal))
        for objection in self._objections_to_references(model, images, mask):
            kind, *number = objection.place
            found = mask if mask and kind == "mask" else images[int(number[0])]
            if not objection.fatal:
                self._warn(found.place, objection.message)
            elif found.reference.is_remote:
                refusals.append((found.place, objection.message))
            else:
                reasons.append(self._report(JobFault(found.place, objection.message), line))
        if reasons:
            raise JobRefused(None if None in reasons else reasons[0])
        for place, message in refusals:
            self._warn(place, f"{message}; no request is sent for this job")
        return f"{REFERENCE_REASON}: {refusals[0][1]}" if refusals else None

    def _objections_to_references(
        self, model: str, images: Sequence[PlacedReference], mask: PlacedReference | None
    ) -> Sequence[Objection]:
        rules = self._context.rules
        if rules is None:
            return ()
        references = [found.reference for found in images]
        return rules.of_references(model, references, mask.reference if mask else None)

    def _cell(self, line: Line, combination: tuple[MatrixValue, ...]) -> Cell:
        values = dict(zip(self._template.matrix, combination, strict=True))
        return Cell(source=line.source, values=values)

    def _warn(self, place: DocPath, message: str) -> None:
        self._context.warnings.add((*self._at, *place), message)

    def _text(self, part: Part, variables: Mapping[str, object]) -> str | None:
        try:
            text = part.template.render(variables)
        except UndefinedNameError as error:
            if part.of_rows:
                return None
            raise self._template_fault(part.place, error) from None
        except TemplateError as error:
            raise self._template_fault(part.place, error) from None
        if not text.isascii():
            try:
                text.encode()
            except UnicodeEncodeError:
                message = "contains an unpaired surrogate; expected valid Unicode text"
                raise JobFault(part.place, message) from None
        return text

    def _template_fault(self, place: DocPath, error: TemplateError) -> JobFault:
        """Blame the manifest for a name that no row has, and the row for other errors."""
        unknown = isinstance(error, UndefinedNameError) and self._context.fixed_columns
        return JobFault(place, str(error), of_manifest=unknown)
